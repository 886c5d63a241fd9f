"""Losses without labels: regions of views in place of annotated masks, named by CLIP's view of each.

Distilling CLIP's features point by point diverges or stays as noisy as they are; what CLIP sees in a mask as a whole is
a steadier target, so every distance here is one of a mask or region.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import torch
import torch.nn.functional as F
from torch import Tensor

from xmask3d.losses.loss import Loss, LossStep, Need
from xmask3d.losses.mask_losses import TargetCount, set_losses
from xmask3d.losses.point_losses import count_pairs
from xmask3d.losses.terms import MASKS, NOTHING, Feature, SetLoss
from xmask3d.models.similarity import at_least_float32

REGIONS: frozenset[Need] = frozenset({"regions"})


class RegionSetLoss(SetLoss):
    """Set loss on masks without classes: a matched mask is pulled to CLIP's embedding of its region."""

    needs: ClassVar[frozenset[Need]] = SetLoss.needs | REGIONS

    def __call__(self, step: LossStep) -> tuple[Tensor, Tensor, Tensor]:
        """Compute embedding, mask and dice loss of every prediction, not weighted."""
        label_maps, wanted = step.batch.label_maps, _wanted(step)
        assert label_maps is not None
        mask_logits = [at_least_float32(prediction.mask_logits) for prediction in step.outputs.masks]
        alike = [logits.new_zeros(*logits.shape[:2], wanted.shape[1]) for logits in mask_logits]
        matching = self.match(
            mask_logits,
            alike,
            label_maps,
            class_weight=0.0,
            mask_weight=self.mask,
            dice_weight=self.dice,
            num_points=self.num_points,
            uniform=step.uniform,
        )
        _, masks, dices = set_losses(
            mask_logits,
            alike,
            label_maps,
            matching,
            step.targets or TargetCount(label_maps, wanted.shape[1]),
            no_object=self.no_object,
            num_points=self.num_points,
            uniform=step.uniform,
        )
        distances = [
            1 - F.cosine_similarity(at_least_float32(prediction.embeddings)[image, query], wanted[image, label], dim=-1)
            for prediction, image, query, label in zip(
                step.outputs.masks, matching.image, matching.query, matching.label, strict=True
            )
        ]
        return torch.stack([distance.mean() for distance in distances]), masks, dices


@dataclass(eq=False)
class RegionLoss(Loss):
    """Distance of the mean feature of a region's points and CLIP's embedding of it, averaged over regions."""

    name: str
    weight: float
    feature: Feature
    group: str = "points"

    def __post_init__(self) -> None:
        self.needs = REGIONS | (MASKS if self.feature == "fused" else NOTHING)

    def compute(self, step: LossStep) -> Tensor:
        """Compute the loss, see `Loss`."""
        wanted = _wanted(step)
        features, row_of = step.point_features(self.feature)
        slots = step.batch.point_batch * wanted.shape[1] + _region_of_points(step)
        counts = count_pairs(slots, row_of, (wanted.shape[0] * wanted.shape[1], len(features))).to(features.dtype)
        size = counts.sum(1)
        means = counts @ features / size.clamp(min=1)[:, None]
        distance = 1 - F.cosine_similarity(means, wanted.flatten(0, 1), dim=-1)
        return torch.where(size > 0, distance, 0).sum() / (size > 0).sum().clamp(min=1)


def _wanted(step: LossStep) -> Tensor:
    """Return CLIP's embedding of every region, B x R x D."""
    assert step.outputs.region_embeddings is not None, "the loss does not say that it needs regions"
    return at_least_float32(step.outputs.region_embeddings)


def _region_of_points(step: LossStep) -> Tensor:
    """Read the region maps at the points' pixels, N int64."""
    label_maps, batch = step.batch.label_maps, step.batch
    assert label_maps is not None
    (height, width), (rows, columns) = step.frame_size, label_maps.shape[-2:]
    return label_maps[batch.point_batch, batch.pixels[:, 0] * rows // height, batch.pixels[:, 1] * columns // width]
