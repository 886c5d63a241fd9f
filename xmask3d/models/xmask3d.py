"""The whole network: points and an image in, masks with CLIP embeddings and point features out (paper section 3)."""

from __future__ import annotations

from dataclasses import dataclass

from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn

from xmask3d.data.scene import Batch
from xmask3d.models.diffusion import EncodedImages

if TYPE_CHECKING:
    from xmask3d.models.clip import MaskClip, TextClassifier
    from xmask3d.models.conditioner import EmptyConditioner, ImplicitConditioner
    from xmask3d.models.diffusion import DiffusionFeatures
    from xmask3d.models.fusion import Fuser
    from xmask3d.models.mask_decoder import MaskDecoder, MaskPrediction
    from xmask3d.models.mink_unet import BinaryHead, PointEncoder
    from xmask3d.models.pixel_decoder import PixelDecoder
    from xmask3d.models.pyramid import FeaturePyramid


@dataclass
class Outputs:
    """What a forward gives; B samples, Q queries, N points, n texts.

    Attributes:
        masks: final prediction first, then those of the decoder's earlier layers if asked for.
        class_logits: of each prediction B x Q x (n + 1), null last.
        class_embeddings: (n + 1) x D, the texts and null, not normalised.
        temperature: scalar, multiplies cosine similarities.
        global_feature: B x D, the implicit caption.
        points_3d: N x D.
        binary_logits: N, positive where base.
        clip_embeddings: B x Q x D, CLIP's view of the final masks, no gradient; None unless asked for.
    """

    masks: list[MaskPrediction]
    class_logits: list[Tensor]
    class_embeddings: Tensor
    temperature: Tensor
    global_feature: Tensor
    points_3d: Tensor
    binary_logits: Tensor
    clip_embeddings: Tensor | None = None

    @property
    def mask_logits(self) -> Tensor:
        """B x Q x h x w, of the final prediction."""
        return self.masks[0].mask_logits

    @property
    def mask_embeddings(self) -> Tensor:
        """B x Q x D, of the final prediction."""
        return self.masks[0].embeddings


class XMask3D(nn.Module):
    """Assembles the parts; they are built elsewhere."""

    def __init__(
        self,
        *,
        point_encoder: PointEncoder,
        binary_head: BinaryHead,
        conditioner: ImplicitConditioner | EmptyConditioner,
        diffusion: DiffusionFeatures,
        pyramid: FeaturePyramid,
        pixel_decoder: PixelDecoder,
        mask_decoder: MaskDecoder,
        classifier: TextClassifier,
        mask_clip: MaskClip,
        fuser: Fuser,
    ) -> None:
        """Frozen parts (`diffusion`, `mask_clip`) keep out of `parameters()` and `state_dict()` by themselves."""
        super().__init__()
        self.point_encoder = point_encoder
        self.binary_head = binary_head
        self.conditioner = conditioner
        self.diffusion = diffusion
        self.pyramid = pyramid
        self.pixel_decoder = pixel_decoder
        self.mask_decoder = mask_decoder
        self.classifier = classifier
        self.mask_clip = mask_clip
        self.fuser = fuser

    def forward(
        self, batch: Batch, text: Tensor, *, mask_clip: bool, auxiliary: bool, encoded: EncodedImages | None = None
    ) -> Outputs:
        """Run every network on a batch of views.

        Args:
            batch: B views with their points.
            text: n x D text embeddings, of the base classes in training, of all K at test time.
            mask_clip: also embed the final masks by CLIP.
            auxiliary: also return what the decoder's earlier layers predict.
            encoded: of the same images, to save the VAE.
        """
