"""Pre-training of the small CLIP: text from a sentence encoder, then regions and views of collages against text."""

import json
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from open_clip import CLIP
from torch import Tensor, nn
from torch.nn.attention import SDPBackend, sdpa_kernel
from tqdm import trange

from tools.pretraining.clip_regions import Encoded, encode_regions
from tools.pretraining.dataset import Pool
from tools.pretraining.features import FeaturePool
from tools.pretraining.vocabulary import (
    CONCEPTS,
    all_texts,
    sample_concept_texts,
    sample_region_caption,
    sample_view_caption,
)
from xmask3d.models.clip_stem import imagenet_weights
from xmask3d.models.tokenizer import CompactTokenizer

EMBED_DIM = 128
CONTEXT_LENGTH = 32
TEMPERATURE = 14.3
"""CLIP's initial temperature, which the published system also starts from; learned logits are scaled by it."""

MOST_CAPTIONS = 64

VISION = {
    "stem": "efficientnet_lite0",
    "image_size": 192,
    "patch_size": 16,
    "width": 192,
    "layers": 4,
    "head_width": 64,
    "mlp_ratio": 4.0,
}
TEXT = {"context_length": CONTEXT_LENGTH, "width": 128, "heads": 2, "layers": 3}


def model_config(vocabulary_size: int) -> dict:
    """Return the `model_cfg` of an open_clip configuration."""
    return {"embed_dim": EMBED_DIM, "vision_cfg": dict(VISION), "text_cfg": {**TEXT, "vocab_size": vocabulary_size}}


def make_tokenizer() -> CompactTokenizer:
    """Make a tokenizer for all the words that pre-training uses."""
    return CompactTokenizer.from_texts(all_texts(), shared_rows=128, context_length=CONTEXT_LENGTH)


def prepare_stem(clip: CLIP, features: FeaturePool) -> None:
    """Load the ImageNet blocks into the image tower, in place, and the statistics of their output."""
    stem = clip.visual.conv1
    stem.load_state_dict(imagenet_weights(stem), strict=False)
    sample = features.fine[:: max(1, len(features.fine) // 512)].float()
    stem.norm.running_mean.copy_(sample.mean((0, 2, 3)))
    stem.norm.running_var.copy_(sample.var((0, 2, 3)))


def encode_tokens(clip: CLIP, tokens: Tensor) -> Tensor:
    """Embed tokens N x context as text, N x D; like `clip.encode_text`, but stops at the longest text."""
    length = int(tokens.argmax(1).max()) + 1
    tokens = tokens[:, :length]
    x = clip.token_embedding(tokens) + clip.positional_embedding[:length]
    # For such short sequences the backward pass of fused attention is several times slower on CPUs.
    with sdpa_kernel(SDPBackend.MATH):
        x = clip.transformer(x, attn_mask=clip.attn_mask[:length, :length])
    x = clip.ln_final(x)
    return x[torch.arange(len(x)), tokens.argmax(1)] @ clip.text_projection


def train_text(
    clip: CLIP,
    tokenizer: CompactTokenizer,
    texts: list[str],
    targets: Tensor,
    *,
    steps: int,
    batch_size: int = 384,
    learning_rate: float = 2e-3,
    seed: int = 0,
) -> float:
    """Train the text tower on a sentence encoder's embeddings of `texts` (N x D, of length 1). Returns the cosine."""
    tokens = tokenizer(texts)
    rng = torch.Generator().manual_seed(seed)
    parameters = text_parameters(clip)
    optimizer = torch.optim.AdamW(parameters, lr=learning_rate, weight_decay=0.02)
    average = 0.0
    bar = trange(steps, desc="text tower")
    for step in bar:
        set_rate(optimizer, learning_rate, step, steps, warmup=50)
        rows = torch.randint(len(texts), (batch_size,), generator=rng)
        cosine = F.cosine_similarity(encode_tokens(clip, tokens[rows]), targets[rows]).mean()
        optimizer.zero_grad()
        (1 - cosine).backward()
        nn.utils.clip_grad_norm_(parameters, 1.0)
        optimizer.step()
        average += 0.05 * (float(cosine.detach()) - average)
        if step % 20 == 0:
            bar.set_postfix(cosine=f"{average:.3f}")
    return average


def text_parameters(clip: CLIP) -> list[nn.Parameter]:
    """Return the parameters of the text tower."""
    return [p for name, p in clip.named_parameters() if not name.startswith("visual.") and name != "logit_scale"]


def set_rate(optimizer: torch.optim.Optimizer, peak: float, step: int, steps: int, warmup: int) -> None:
    """Set the rate: linear warm-up, level, and from the middle on linearly to a hundredth."""
    factor = min(1.0, (step + 1) / warmup, 0.01 + 2 * (1 - step / steps))
    for group in optimizer.param_groups:
        group["lr"] = peak * factor * group.get("factor", 1.0)


def trainer_state(trainer: Any, modules: dict[str, nn.Module]) -> dict:
    """Return weights, optimiser, random streams and step of a trainer, as plain tensors and strings."""
    return {
        "modules": {name: module.state_dict() for name, module in modules.items()},
        "optimizers": [optimizer.state_dict() for optimizer in trainer.optimizers],
        "rng": trainer.rng.get_state(),
        "words": json.dumps(trainer.words.bit_generator.state),
        "step": trainer.step,
    }


def restore_trainer(trainer: Any, modules: dict[str, nn.Module], state: dict) -> None:
    """Undo `trainer_state`."""
    for name, module in modules.items():
        module.load_state_dict(state["modules"][name])
    for optimizer, saved in zip(trainer.optimizers, state["optimizers"], strict=True):
        optimizer.load_state_dict(saved)
    trainer.rng.set_state(state["rng"])
    trainer.words.bit_generator.state = json.loads(state["words"])
    trainer.step = state["step"]


class ClipTrainer:
    """Contrastive training on a pool of collage views, from image features that are computed once.

    Args:
        pool: views. features: of the stem and of the teacher, for one or more variants of each view.
        texts, text_targets: texts and their sentence embeddings, near which the text tower is kept.
    """

    def __init__(
        self,
        clip: CLIP,
        tokenizer: CompactTokenizer,
        pool: Pool,
        features: FeaturePool,
        texts: list[str],
        text_targets: Tensor,
        *,
        steps: int,
        batch_size: int = 64,
        regions: int = 8,
        keep: float = 0.6,
        learning_rate: float = 1e-3,
        seed: int = 0,
    ) -> None:
        self.clip, self.tokenizer, self.pool, self.features = clip, tokenizer, pool, features
        self.text_tokens, self.text_targets = tokenizer(texts), text_targets
        self.steps, self.batch_size, self.regions, self.keep = steps, batch_size, regions, keep
        self.learning_rate = learning_rate
        self.heads = nn.ModuleDict(
            {
                "patch": nn.Linear(VISION["width"], features.deep.shape[1]),
                "region": nn.Linear(EMBED_DIM, features.deep.shape[1]),
            }
        )
        # Muon (orthogonalised momentum) learns from far fewer steps than Adam in the matrices of the image tower.
        matrices = [p for p in clip.visual.transformer.parameters() if p.ndim == 2]
        clip.visual.conv1.features.requires_grad_(False)
        others = [
            p for p in clip.visual.parameters() if p.requires_grad and all(p is not matrix for matrix in matrices)
        ]
        self.optimizers: list[torch.optim.Optimizer] = [
            torch.optim.Muon(matrices, lr=learning_rate, weight_decay=0.05, adjust_lr_fn="match_rms_adamw"),
            torch.optim.AdamW(
                [{"params": [*others, *self.heads.parameters()]}, {"params": text_parameters(clip), "factor": 0.3}],
                lr=learning_rate,
                weight_decay=0.05,
                betas=(0.9, 0.98),
            ),
        ]
        self.rng = torch.Generator().manual_seed(seed)
        self.words = np.random.default_rng(seed)
        counts = np.bincount(pool.concepts[pool.concepts >= 0], minlength=len(CONCEPTS)).clip(1)
        # Rare concepts count more, rooms of walls and floors less.
        self.weights = torch.from_numpy((counts / counts.mean()) ** -0.5).float().clamp(0.2, 3)
        self.step = 0

    def train_step(self) -> dict[str, float]:
        """Take one optimisation step; returns the losses."""
        for optimizer in self.optimizers:
            set_rate(optimizer, self.learning_rate, self.step, self.steps, warmup=60)
        chosen = torch.randint(len(self.features.views), (self.batch_size,), generator=self.rng)
        rows = self.features.views[chosen]
        fine, targets, coverage = self.features.batch(chosen, flip=bool(torch.rand((), generator=self.rng) < 0.5))
        visible, concepts, numbers = self._pick_regions(
            coverage, torch.from_numpy(self.pool.concepts[rows.numpy()]).long()
        )
        last_tenth = self.step > 0.92 * self.steps
        kept = None if last_tenth else self._pick_patches(visible)
        with torch.autocast("cpu", torch.bfloat16):
            encoded = encode_regions(self.clip.visual, self.clip.visual.conv1.project(fine), visible, kept)
            losses = self._losses(encoded, rows, concepts, numbers)
            losses |= self._teacher_losses(encoded, targets.flatten(2).transpose(1, 2), visible, concepts >= 0, kept)
        self.clip.zero_grad(set_to_none=True)
        self.heads.zero_grad(set_to_none=True)
        sum(losses.values()).backward()
        nn.utils.clip_grad_norm_(self.clip.parameters(), 1.0)
        for optimizer in self.optimizers:
            optimizer.step()
        self.step += 1
        return {name: float(value.detach()) for name, value in losses.items()}

    def state(self) -> dict:
        """Return everything that the next step depends on, for `restore`."""
        return trainer_state(self, {"clip": self.clip, "heads": self.heads})

    def restore(self, state: dict) -> None:
        """Resume from the step at which `state` was taken."""
        restore_trainer(self, {"clip": self.clip, "heads": self.heads}, state)

    def _pick_regions(self, coverage: Tensor, concepts: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Pick up to R regions per view: patches B x R x P, concepts B x R (-1 none), region numbers B x R."""
        # Mostly any touch counts, as in MaskCLIP; sometimes only well covered patches, as predicted masks differ.
        threshold = torch.tensor([0.002, 0.1, 0.35])[torch.randint(3, (len(coverage), 1, 1), generator=self.rng)]
        area = coverage.sum(-1)
        score = torch.rand(area.shape, generator=self.rng) + (area > 0.4) * 2.0 - (concepts < 0) * 9.0
        numbers = score.topk(self.regions, dim=1).indices
        chosen = coverage.gather(1, numbers[..., None].expand(-1, -1, coverage.shape[-1]))
        enough = area.gather(1, numbers) > 0.4
        visible = (chosen > threshold) | (chosen >= chosen.amax(-1, keepdim=True).clamp(min=1e-6))
        return visible, torch.where(enough, concepts.gather(1, numbers), -1), numbers

    def _pick_patches(self, visible: Tensor) -> Tensor:
        """Pick a random share of the patches, those of small regions first."""
        b, _, p = visible.shape
        size = visible.sum(-1, keepdim=True).clamp(min=1)
        bonus = (visible / size).amax(1).clamp(max=0.5)
        score = torch.rand(b, p, generator=self.rng) + bonus
        return score.topk(int(p * self.keep), dim=1).indices

    def _teacher_losses(
        self, encoded: Encoded, targets: Tensor, visible: Tensor, valid: Tensor, kept: Tensor | None
    ) -> dict[str, Tensor]:
        """Compare with ImageNet features at each patch (targets: B x P x C), and on average in each region."""
        share = visible.float() / visible.float().sum(-1, keepdim=True).clamp(min=1)
        means = (share @ targets)[valid]
        if kept is not None:
            targets = targets.gather(1, kept[..., None].expand(-1, -1, targets.shape[-1]))
        patches, regions = (
            self.heads["patch"](encoded.patches).float(),
            self.heads["region"](encoded.regions[valid]).float(),
        )
        return {
            "patches": 0.7 * (1 - F.cosine_similarity(patches, targets, dim=-1).mean()),
            "regions": 0.7 * (1 - F.cosine_similarity(regions, means, dim=-1).mean()),
        }

    def _losses(self, encoded: Encoded, rows: Tensor, concepts: Tensor, numbers: Tensor) -> dict[str, Tensor]:
        valid = concepts >= 0
        labels = concepts[valid]
        features = F.normalize(encoded.regions.float()[valid], dim=-1)
        captions, views, bank = self._words(rows, concepts, numbers)
        picked = torch.randint(len(self.text_tokens), (48,), generator=self.rng)
        short = torch.cat([self.tokenizer([*bank, *captions]), self.text_tokens[picked]])
        # Long and short texts apart, so that the short ones need no padding.
        text = F.normalize(encode_tokens(self.clip, short).float(), dim=-1)
        names, caption_text, anchors = text.split([len(bank), len(captions), len(picked)])
        view_text = F.normalize(encode_tokens(self.clip, self.tokenizer(views)).float(), dim=-1)
        return {
            "concept": F.cross_entropy(
                1.5 * TEMPERATURE * features @ names.T, labels, self.weights, label_smoothing=0.05
            ),
            "caption": 0.3 * self._caption_loss(features, labels, caption_text),
            "view": 0.2 * _contrast(F.normalize(encoded.views.float(), dim=-1), view_text),
            "words": 2.0 * (1 - F.cosine_similarity(anchors, self.text_targets[picked], dim=-1).mean()),
        }

    def _words(self, rows: Tensor, concepts: Tensor, numbers: Tensor) -> tuple[list[str], list[str], list[str]]:
        names = list(CONCEPTS)
        captions, views = [], []
        for row, ids, regions in zip(rows.tolist(), concepts.tolist(), numbers.tolist(), strict=True):
            kinds = self.pool.kinds[row]
            things = [
                (names[c], kinds[r])
                for c, r in sorted(zip(ids, regions, strict=True), key=lambda item: item[1])
                if c >= 0
            ]
            if len(captions) < MOST_CAPTIONS:
                captions.extend(
                    sample_region_caption(self.words, names[c], kinds[r])
                    for c, r in zip(ids, regions, strict=True)
                    if c >= 0
                )
            views.append(sample_view_caption(self.words, things))
        return captions, views, sample_concept_texts(self.words)

    def _caption_loss(self, features: Tensor, labels: Tensor, captions: Tensor) -> Tensor:
        """Compare regions with the captions of regions; captions of the same concept are no negatives."""
        count = len(captions)
        logits = TEMPERATURE * features[:count] @ captions.T
        same = labels[:count, None] == labels[None, :count]
        logits = logits.masked_fill(same & ~torch.eye(count, dtype=torch.bool), -1e4)
        truth = torch.arange(count)
        return (F.cross_entropy(logits, truth) + F.cross_entropy(logits.T, truth)) / 2


def _contrast(images: Tensor, texts: Tensor) -> Tensor:
    logits = TEMPERATURE * images @ texts.T
    truth = torch.arange(len(images))
    return (F.cross_entropy(logits, truth) + F.cross_entropy(logits.T, truth)) / 2
