"""Losses of the paper as parts of the criterion (Eq. 9-14)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar, Literal

from torch import Tensor

from xmask3d.losses.loss import Loss, LossStep, Need
from xmask3d.losses.mask_losses import TargetCount, set_losses
from xmask3d.losses.matcher import match
from xmask3d.losses.point_losses import (
    NovelSupervision,
    binary_loss,
    binary_loss_unlabelled,
    caption_loss,
    mean_mask_feature,
    mean_per_sample,
    point_cross_entropy,
)
from xmask3d.losses.regularisation import mask_regularisation
from xmask3d.models.similarity import at_least_float32, cosine_logits

Feature = Literal["fused", "3d"]
NOTHING: frozenset[Need] = frozenset()
MASKS: frozenset[Need] = frozenset({"masks"})


@dataclass(eq=False)
class SetLoss:
    """Set loss on masks and their classes; its three parts share a matching (Eq. 12).

    Attributes:
        mask_class, mask, dice: weights of the parts in the loss and in the matching cost.
        no_object: weight of null in the class cross entropy.
        num_points: points per mask in the matcher and in the mask losses.
    """

    mask_class: float
    mask: float
    dice: float
    no_object: float = 0.1
    num_points: int = 12544
    match = staticmethod(match)
    needs: ClassVar[frozenset[Need]] = frozenset({"masks", "random"})

    def parts(self) -> list[Loss]:
        """Make the three losses."""
        weights = {"mask_class": self.mask_class, "mask": self.mask, "dice": self.dice}
        return [SetPart(name, weight, i, self, needs=self.needs) for i, (name, weight) in enumerate(weights.items())]

    def __call__(self, step: LossStep) -> tuple[Tensor, Tensor, Tensor]:
        """Compute class, mask and dice loss of every prediction, not weighted."""
        label_maps = step.batch.label_maps
        assert label_maps is not None
        mask_logits = [at_least_float32(prediction.mask_logits) for prediction in step.outputs.masks]
        class_logits = [at_least_float32(logits) for logits in step.outputs.class_logits]
        matching = self.match(
            mask_logits,
            class_logits,
            label_maps,
            class_weight=self.mask_class,
            mask_weight=self.mask,
            dice_weight=self.dice,
            num_points=self.num_points,
            uniform=step.uniform,
        )
        return set_losses(
            mask_logits,
            class_logits,
            label_maps,
            matching,
            step.targets or TargetCount(label_maps, step.num_classes + 1),
            no_object=self.no_object,
            num_points=self.num_points,
            uniform=step.uniform,
        )


@dataclass(eq=False)
class SetPart(Loss):
    """One part of the set loss: a number for each mask prediction."""

    name: str
    weight: float
    index: int
    shared: SetLoss
    group: str = "masks"
    needs: frozenset[Need] = frozenset({"masks", "random"})

    def compute(self, step: LossStep) -> Tensor:
        """Compute the loss, see `Loss`."""
        return step.once(self.shared)[self.index]


@dataclass(eq=False)
class PointLoss(Loss):
    """Cross entropy of the points' classes (Eq. 9); see `point_cross_entropy` for `balance`."""

    name: str
    weight: float
    feature: Feature
    balance: float = 0.0
    group: str = "points"

    def __post_init__(self) -> None:
        self.needs = MASKS if self.feature == "fused" else NOTHING

    def compute(self, step: LossStep) -> Tensor:
        """Compute the loss, see `Loss`."""
        features, row_of = step.point_features(self.feature)
        logits = cosine_logits(features, step.class_embeddings, step.temperature)
        return point_cross_entropy(logits, step.labels, row_of, self.balance)


@dataclass(eq=False)
class CaptionLoss(Loss):
    """Distance between a view's caption and the mean feature of its points (Eq. 11)."""

    name: str
    weight: float
    feature: Feature | Literal["2d"]
    group: str = "captions"

    def __post_init__(self) -> None:
        captions: frozenset[Need] = frozenset({"captions"})
        self.needs = captions if self.feature == "3d" else captions | MASKS

    def compute(self, step: LossStep) -> Tensor:
        """Compute the loss, see `Loss`."""
        point_batch = step.batch.point_batch
        if self.feature == "2d":
            mean, covered = mean_mask_feature(step.fused.embeddings, step.fused.owner, point_batch)
            return caption_loss(mean, step.captions, step.captioned & covered)
        features, row_of = step.point_features(self.feature)
        mean = mean_per_sample(features, point_batch, step.batch.size, row_of)
        return caption_loss(mean, step.captions, step.captioned)


@dataclass(eq=False)
class BinaryLoss(Loss):
    """Cross entropy of base against novel points (Eq. 13).

    Attributes:
        positive_weight: weight of base points.
        supervision: see `Criterion`.
        base_share: share of base points among unlabelled ones if `supervision` is "none"; 0 if every base point is
            annotated.
    """

    weight: float
    positive_weight: float = 0.267
    supervision: NovelSupervision = "reference"
    base_share: float = 0.0
    name: str = "binary"
    group: str = "binary"

    def compute(self, step: LossStep) -> Tensor:
        """Compute the loss, see `Loss`."""
        logits, targets = at_least_float32(step.outputs.binary_logits), step.binary_targets
        if self.supervision == "reference":
            return binary_loss(logits, targets, self.positive_weight)
        return binary_loss_unlabelled(logits, targets, self.positive_weight, self.base_share)


@dataclass(eq=False)
class MaskRegularisation(Loss):
    """Distance between the mean 3D feature under a mask and the mask's CLIP embedding (Eq. 10, section 3.4)."""

    weight: float
    start: int = 0
    name: str = "mask_regularisation"
    group: str = "regularisation"
    needs: frozenset[Need] = frozenset({"masks", "clip"})

    def compute(self, step: LossStep) -> Tensor:
        """Compute the loss, see `Loss`."""
        outputs = step.outputs
        assert outputs.clip_embeddings is not None, "regularising needs CLIP's view of the masks"
        return mask_regularisation(
            step.voxels,
            outputs.point_to_voxel,
            outputs.clip_embeddings,
            outputs.mask_logits,
            step.fused.mask_logits,
            step.binary_targets,
            step.batch.point_batch,
            step.frame_size,
        )
