"""Frozen CLIP: text embeddings, and image embeddings of masks (MaskCLIP, arXiv 2208.08984)."""

from collections.abc import Callable, Sequence
from typing import Any

import torch
import torch.nn.functional as F
from open_clip.constants import OPENAI_DATASET_MEAN, OPENAI_DATASET_STD
from torch import Tensor, nn

from xmask3d.errors import UserError
from xmask3d.models.clip_towers import EncodedTokens, ImageTower, tower_kind
from xmask3d.models.frozen import ForeignNetwork, FrozenNetworks
from xmask3d.models.loading.clip_weights import Tokenizer, load_clip
from xmask3d.models.similarity import cosine_logits

__all__ = ["ClipText", "EncodedTokens", "MaskClip", "TextClassifier", "cosine_logits", "load_clip"]


class TextClassifier(nn.Module):
    """Classifier by cosine similarity with text embeddings and with a learned embedding for "none of them"."""

    def __init__(self, null_embedding: Tensor) -> None:
        """Initialise from `null_embedding`: 1 x D, the embedding of the empty string."""
        super().__init__()
        self.null_embed = nn.Parameter(null_embedding.detach().clone())

    def embeddings(self, text: Tensor) -> Tensor:
        """Append null to n x D text embeddings: (n + 1) x D, null last."""
        return torch.cat([text.to(self.null_embed), self.null_embed])

    def logits(self, features: Tensor, text: Tensor, temperature: Tensor | float) -> Tensor:
        """Classify features ... x D by texts n x D: logits ... x (n + 1), null last."""
        return cosine_logits(features, self.embeddings(text), temperature)


class ClipText(FrozenNetworks):
    """Text embeddings, each computed once."""

    clip: ForeignNetwork

    def __init__(self, clip: ForeignNetwork, tokenizer: Tokenizer, *, batch_size: int = 64) -> None:
        """Freeze the text tower.

        Args:
            clip, tokenizer: results of `load_clip`.
            batch_size: number of texts to encode at once.
        """
        super().__init__()
        self.freeze("clip", clip)
        self.tokenizer = tokenizer
        self.batch_size = batch_size
        self._known: dict[str, Tensor] = {}

    @property
    def dim(self) -> int:
        """Size D of the embeddings."""
        if hasattr(self.clip, "text"):  # SigLIP, EVA: a text tower beside the image tower
            return self.clip.text.output_dim
        return self.clip.text_projection.shape[1]

    @property
    def _like(self) -> Tensor:
        """A weight, whose device and type are the embeddings'."""
        return next(self.clip.parameters())

    def forward(self, texts: Sequence[str]) -> Tensor:
        """Embed N strings: N x D, not normalised, without gradient, on the network's device."""
        unknown = [text for text in dict.fromkeys(texts) if text not in self._known]
        for start in range(0, len(unknown), self.batch_size):
            batch = unknown[start : start + self.batch_size]
            self._known.update(zip(batch, self._encode(batch), strict=True))
        if not texts:
            return self._like.new_zeros(0, self.dim)
        return torch.stack([self._known[text] for text in texts])

    def knows(self, text: str) -> bool:
        """Return True if a text was encoded before."""
        return text in self._known

    def remember(self, text: str, embedding: Tensor) -> None:
        """Store an embedding, 1 x D, that this encoder computed earlier."""
        self._known[text] = embedding[0].to(self._like.device)

    def encode_classes(self, names: Sequence[str], templates: Sequence[str] = ("{}",)) -> Tensor:
        """Return one embedding per class name.

        Args:
            names: K class names.
            templates: prompts, each with one {} for the name. With several, a class gets the mean of the normalised
                embeddings; with one, the embedding without normalisation.

        Returns:
            K x D.
        """
        if not templates or any(template.count("{}") != 1 for template in templates):
            raise UserError(f"prompt templates {list(templates)}: each needs exactly one {{}} for the class name")
        texts = [template.replace("{}", name) for name in names for template in templates]
        embeddings = self(texts).unflatten(0, (len(names), len(templates)))
        if len(templates) == 1:
            return embeddings[:, 0]
        return F.normalize(embeddings, dim=-1).mean(1)

    @torch.no_grad()
    def _encode(self, texts: list[str]) -> Tensor:
        tokens = self.tokenizer(texts).to(self._like.device)
        return self.clip.encode_text(tokens)

    def _apply(self, fn: Callable[[Tensor], Tensor], *args: Any, **kwargs: Any) -> "ClipText":
        self._known.clear()
        super()._apply(fn, *args, **kwargs)
        return self


class MaskClip(FrozenNetworks):
    """CLIP image embeddings of masks, which see the patches that their mask touches (`clip_towers`)."""

    visual: ForeignNetwork

    def __init__(self, clip: ForeignNetwork, dtype: torch.dtype | None = None) -> None:
        """Freeze the image tower.

        Args:
            clip: model of `load_clip`; `tower_kind` says which kinds of image towers it may have.
            dtype: dtype of the weights and of the computation, such as bfloat16; embeddings have the dtype of `mean`.
        """
        super().__init__()
        visual = clip.visual
        self._kind = tower_kind(visual)
        visual.to(dtype=dtype)
        self.freeze("visual", visual)
        mean = getattr(visual, "image_mean", None) or OPENAI_DATASET_MEAN
        std = getattr(visual, "image_std", None) or OPENAI_DATASET_STD
        self.register_buffer("mean", torch.tensor(mean).view(3, 1, 1), persistent=False)
        self.register_buffer("std", torch.tensor(std).view(3, 1, 1), persistent=False)
        self.mean: Tensor
        self.std: Tensor

    @property
    def tower(self) -> ImageTower:
        """Image tower, taken apart; made anew each time, so that nothing keeps it after `release`."""
        return self._kind(self.visual)

    @property
    def dim(self) -> int:
        """Size D of the embeddings."""
        return self.tower.dim

    def numbers_per_image(self, image_size: tuple[int, int]) -> int:
        """Count the numbers of `EncodedTokens` for one image, of any height and width."""
        return self.tower.numbers

    @property
    def patch_grid(self) -> tuple[int, int]:
        """Rows and columns of patches."""
        (height, width), (rows, columns) = self.tower.image_size, self.tower.patch_size
        return height // rows, width // columns

    @torch.no_grad()
    def forward(self, images: Tensor, mask_logits: Tensor) -> Tensor:
        """Return one embedding per mask.

        Args:
            images: B x 3 x H x W in [0, 1].
            mask_logits: B x Q x h x w, covering the same field of view.

        Returns:
            B x Q x D, not normalised, without gradient.
        """
        return self.embed(self.encode(images), mask_logits)

    @torch.no_grad()
    def encode(self, images: Tensor) -> EncodedTokens:
        """Compute the part that does not depend on masks, from images B x 3 x H x W in [0, 1]."""
        return self.tower.encode(self.preprocess(images))

    def pack(self, encoded: EncodedTokens) -> list[Tensor]:
        """List the class token, and keys and values of every layer."""
        return [encoded.class_token, *encoded.keys, *encoded.values]

    def unpack(self, tensors: Sequence[Tensor]) -> EncodedTokens:
        """Undo `pack`."""
        class_token, *rest = tensors
        half = len(rest) // 2
        return EncodedTokens(class_token, tuple(rest[:half]), tuple(rest[half:]))

    @torch.no_grad()
    def embed(self, encoded: EncodedTokens, mask_logits: Tensor) -> Tensor:
        """Embed masks of images that were encoded before: B x Q x h x w logits to B x Q x D."""
        return self.embed_patches(encoded, self.visible_patches(mask_logits))

    @torch.no_grad()
    def embed_patches(self, encoded: EncodedTokens, visible: Tensor) -> Tensor:
        """Embed sets of patches, B x Q x patches bool in row order on any device, to B x Q x D."""
        return self.tower.embed(encoded, visible).to(self.mean.dtype)

    @torch.no_grad()
    def embed_regions(self, encoded: EncodedTokens, regions: Tensor, count: int) -> Tensor:
        """Embed regions by the patches that they touch, B x count x D; `regions`: B x H x W int64 below `count`."""
        (rows, columns), (height, width), device = self.patch_grid, regions.shape[-2:], regions.device
        row = torch.arange(height, device=device) * rows // height
        patch = row[:, None] * columns + torch.arange(width, device=device) * columns // width
        visible = torch.zeros(len(regions), count * rows * columns, dtype=torch.bool, device=device)
        visible.scatter_(1, (regions * (rows * columns) + patch).flatten(1), True)
        return self.embed_patches(encoded, visible.unflatten(1, (count, -1)))

    @torch.no_grad()
    def embed_whole(self, encoded: EncodedTokens) -> Tensor:
        """Embed B complete images, B x D, as plain CLIP does."""
        rows, columns = self.patch_grid
        visible = torch.ones(len(encoded.class_token), 1, rows * columns, dtype=torch.bool, device=self.mean.device)
        return self.embed_patches(encoded, visible)[:, 0]

    def preprocess(self, images: Tensor) -> Tensor:
        """Resize B x 3 x H x W in [0, 1] to the image tower's size, ignoring the aspect ratio, and normalise it."""
        resized = F.interpolate(images, self.tower.image_size, mode="bilinear", align_corners=False)
        return (resized - self.mean) / self.std

    def visible_patches(self, mask_logits: Tensor) -> Tensor:
        """Find the patches where a mask reaches a probability of 0.5: B x Q x patches, in row order."""
        return (self.patch_probabilities(mask_logits) >= 0.5).flatten(2)

    def patch_probabilities(self, mask_logits: Tensor) -> Tensor:
        """Return the largest probability of a mask in each patch: B x Q x rows x columns."""
        mask_logits = mask_logits.to(self.mean.dtype)
        resized = F.interpolate(mask_logits, self.tower.image_size, mode="bilinear", align_corners=False)
        height, width = self.tower.patch_size
        # The maximum over rows, then columns: three times as fast as max pooling, which also finds its position.
        return resized.unflatten(-2, (-1, height)).amax(-2).unflatten(-1, (-1, width)).amax(-1).sigmoid()
