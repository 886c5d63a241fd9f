"""All losses of a training step, weighted (paper Eq. 9-14)."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from xmask3d.data.batch import Batch
from xmask3d.losses.mask_losses import TargetCount, set_losses
from xmask3d.losses.matcher import match
from xmask3d.losses.point_losses import (
    NovelSupervision,
    binary_loss,
    binary_loss_unlabelled,
    binary_targets,
    caption_loss,
    mean_mask_feature,
    mean_per_sample,
    never_all_ignored,
    point_cross_entropy,
)
from xmask3d.losses.regularisation import mask_regularisation
from xmask3d.losses.sampling import Uniform
from xmask3d.models.outputs import Outputs
from xmask3d.models.similarity import at_least_float32, cosine_logits

# Those of `Criterion.weights` that read nothing of the 2D branch.
LOSSES_WITHOUT_MASKS = {"point_3d", "caption_3d", "binary"}


class Criterion(nn.Module):
    """Weighs and sums the losses; has no parameters.

    Losses are computed in float32 (float64 if the outputs are), also under autocast. The only wait for the device is
    the transfer of the matching costs.

    Attributes:
        match: finds the pairs of queries and targets.
    """

    match = staticmethod(match)

    def __init__(
        self,
        *,
        num_classes: int,
        frame_size: tuple[int, int] = (240, 320),
        mask_class: float = 2.0,
        mask: float = 5.0,
        dice: float = 5.0,
        no_object: float = 0.1,
        num_points: int = 12544,
        point_fused: float = 4.0,
        point_3d: float = 4.0,
        point_balance: float = 0.0,
        caption_fused: float = 1.5,
        caption_3d: float = 1.0,
        caption_2d: float = 4.0,
        binary: float = 16.0,
        binary_positive_weight: float = 0.267,
        mask_regularisation: float = 0.5,
        novel_supervision: NovelSupervision = "reference",
        unlabelled_base_share: float = 0.0,
        reference: bool = False,
    ) -> None:
        """
        Args:
            num_classes: C, of the base classes.
            frame_size: grid that the points' pixels are on.
            mask_class, mask, dice: weights of the set loss, also in the matching cost.
            no_object: weight of null in the class cross entropy.
            num_points: points per mask of matcher and mask losses.
            point_fused, point_3d, caption_fused, caption_3d, caption_2d, binary, mask_regularisation: weights.
            point_balance: of the classes in the point cross entropies, see `point_cross_entropy`.
            binary_positive_weight: of base points in the binary loss.
            novel_supervision: "reference" trains the binary head on labels of novel classes and chooses masks for the
                regularisation by them, as published; "none" reads no label of a novel class: whatever has no base
                label counts as unlabelled, see `binary_loss_unlabelled`.
            unlabelled_base_share: with "none", the share of base points among unlabelled ones; 0 where every base
                point is annotated.
            reference: restore what the published losses do in rare batches: where no point has a base label, the first
                counts as one of the last base class; see also `fuse_training`.
        """
        super().__init__()
        self.num_classes, self.frame_size = num_classes, frame_size
        self.num_points, self.no_object = num_points, no_object
        self.set_weights = {"mask_class": mask_class, "mask": mask, "dice": dice}
        self.weights = {
            "point_fused": point_fused,
            "point_3d": point_3d,
            "caption_fused": caption_fused,
            "caption_3d": caption_3d,
            "caption_2d": caption_2d,
            "binary": binary,
            "mask_regularisation": mask_regularisation,
        }
        self.point_balance = point_balance
        self.binary_positive_weight = binary_positive_weight
        self.novel_supervision: NovelSupervision = novel_supervision
        self.unlabelled_base_share = unlabelled_base_share
        self.reference = reference

    def forward(
        self,
        outputs: Outputs,
        batch: Batch,
        caption_embeddings: Tensor,
        *,
        regularise: bool,
        generator: torch.Generator | None = None,
        uniform: Uniform | None = None,
        targets: TargetCount | None = None,
    ) -> dict[str, Tensor]:
        """Weighted losses by name.

        Args:
            outputs: of a forward with the C base texts and auxiliary predictions; without masks, all losses that read
                them are left out.
            batch: with labels, binary labels and label maps.
            caption_embeddings: B x D; samples without caption take no part.
            regularise: whether the mask regularisation takes part; needs `outputs.clip_embeddings`.
            generator: of the random points that masks are compared at.
            uniform: draws them instead; called as `match` and then, per prediction, `mask_losses` say.
            targets: of `count_targets`, if the step has made it before the model ran.

        Returns:
            mask_class, mask and dice of the final prediction; the same with `_aux`, summed over the others if there are
            any; point_fused, point_3d, caption_fused, caption_3d, caption_2d, binary, with `regularise` also
            mask_regularisation; and `total`, the sum of them all.
        """
        device = batch.pixels.device

        def draw(shape: tuple[int, ...]) -> Tensor:
            return torch.rand(shape, device=device, generator=generator)

        with torch.autocast(device.type, enabled=False):
            losses = {} if outputs.fused is None else self._of_masks(outputs, batch, uniform or draw, targets)
            losses |= self._of_points(outputs, batch, caption_embeddings, regularise)
            losses["total"] = torch.stack(list(losses.values())).sum()
        return losses

    @property
    def reads_masks(self) -> bool:
        """Whether any loss that reads masks has a weight; if none has, a step can do without the 2D branch."""
        of_points = {name: weight for name, weight in self.weights.items() if name not in LOSSES_WITHOUT_MASKS}
        return any((self.set_weights | of_points).values())

    def count_targets(self, batch: Batch) -> TargetCount:
        """Begin to count the batch's target masks over all processes."""
        assert batch.label_maps is not None
        return TargetCount(batch.label_maps, self.num_classes + 1)

    def _of_masks(
        self, outputs: Outputs, batch: Batch, uniform: Uniform, targets: TargetCount | None
    ) -> dict[str, Tensor]:
        names, weights = zip(*self.set_weights.items(), strict=True)
        losses = {}
        for name, weight, values in zip(names, weights, self.set_losses(outputs, batch, uniform, targets), strict=True):
            losses[name] = weight * values[0]
            if len(values) > 1:
                losses[f"{name}_aux"] = weight * values[1:].sum()
        return losses

    def set_losses(
        self, outputs: Outputs, batch: Batch, uniform: Uniform, targets: TargetCount | None = None
    ) -> tuple[Tensor, Tensor, Tensor]:
        """Class, mask and dice loss of every prediction, not weighted."""
        assert batch.label_maps is not None
        mask_logits = [at_least_float32(prediction.mask_logits) for prediction in outputs.masks]
        class_logits = [at_least_float32(logits) for logits in outputs.class_logits]
        matching = self.match(
            mask_logits,
            class_logits,
            batch.label_maps,
            class_weight=self.set_weights["mask_class"],
            mask_weight=self.set_weights["mask"],
            dice_weight=self.set_weights["dice"],
            num_points=self.num_points,
            uniform=uniform,
        )
        return set_losses(
            mask_logits,
            class_logits,
            batch.label_maps,
            matching,
            targets or self.count_targets(batch),
            no_object=self.no_object,
            num_points=self.num_points,
            uniform=uniform,
        )

    def _of_points(
        self, outputs: Outputs, batch: Batch, caption_embeddings: Tensor, regularise: bool
    ) -> dict[str, Tensor]:
        assert batch.labels is not None
        fused, size, point_batch = outputs.fused, batch.size, batch.point_batch
        labels = never_all_ignored(batch.labels, self.num_classes) if self.reference else batch.labels
        voxels, voxel_of = at_least_float32(outputs.voxels_3d), outputs.point_to_voxel
        targets = binary_targets(batch, self.num_classes, self.novel_supervision)
        captioned = torch.tensor([bool(caption) for caption in batch.captions]).to(targets.device, non_blocking=True)
        embeddings, temperature = at_least_float32(outputs.class_embeddings), at_least_float32(outputs.temperature)

        def classify(features: Tensor, feature_of: Tensor) -> Tensor:
            logits = cosine_logits(features, embeddings, temperature)
            return point_cross_entropy(logits, labels, feature_of, self.point_balance)

        def caption(features: Tensor, feature_of: Tensor) -> Tensor:
            mean = mean_per_sample(features, point_batch, size, feature_of)
            return caption_loss(mean, caption_embeddings, captioned)

        losses = {
            "point_3d": classify(voxels, voxel_of),
            "caption_3d": caption(voxels, voxel_of),
            "binary": self._binary(at_least_float32(outputs.binary_logits), targets),
        }
        if fused is not None:
            rows, row_of = at_least_float32(fused.rows), fused.point_to_row
            mean_2d, has_2d = mean_mask_feature(fused.embeddings, fused.owner, point_batch)
            losses |= {
                "point_fused": classify(rows, row_of),
                "caption_fused": caption(rows, row_of),
                "caption_2d": caption_loss(mean_2d, caption_embeddings, captioned & has_2d),
            }
        if regularise:
            assert fused is not None and outputs.clip_embeddings is not None, "regularising needs masks and mask_clip"
            losses["mask_regularisation"] = mask_regularisation(
                voxels,
                voxel_of,
                outputs.clip_embeddings,
                outputs.mask_logits,
                fused.mask_logits,
                targets,
                point_batch,
                self.frame_size,
            )
        return {name: weight * losses[name] for name, weight in self.weights.items() if name in losses}

    def _binary(self, logits: Tensor, targets: Tensor) -> Tensor:
        if self.novel_supervision == "reference":
            return binary_loss(logits, targets, self.binary_positive_weight)
        return binary_loss_unlabelled(logits, targets, self.binary_positive_weight, self.unlabelled_base_share)
