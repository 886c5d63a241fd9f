"""Weighted sum of all losses of a training step (paper Eq. 9-14)."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence

import torch
from torch import Tensor, nn

from xmask3d.data.batch import Batch
from xmask3d.errors import UserError
from xmask3d.losses.loss import Loss, LossStep, Need
from xmask3d.losses.mask_losses import TargetCount
from xmask3d.losses.point_losses import NovelSupervision, binary_targets, never_all_ignored
from xmask3d.losses.sampling import Uniform
from xmask3d.models.outputs import Outputs


class Criterion(nn.Module):
    """Weighted sum of a list of losses, without parameters.

    Losses are computed in float32 (float64 if the outputs are), also under autocast. The only wait for the device is
    the transfer of the matching costs.
    """

    def __init__(
        self,
        losses: Sequence[Loss],
        *,
        num_classes: int,
        frame_size: tuple[int, int],
        novel_supervision: NovelSupervision = "reference",
        reference: bool = False,
        num_labels: int | None = None,
    ) -> None:
        """Check and keep the losses.

        Args:
            losses: terms of the sum, in its order.
            num_classes: C, of the base classes.
            frame_size: height and width of the grid of the points' pixels.
            novel_supervision: "reference" gives labels of novel classes to the losses, as published; with "none" no
                label of a novel class is read, and every point without a base label counts as unlabelled, see
                `binary_loss_unlabelled`.
            reference: restore the published behaviour in rare batches: if no point has a base label, the first point
                counts as one of the last base class; see also `fuse_training`.
            num_labels: number of labels that a label map may hold; by default C and null.

        Raises:
            UserError: two losses of one name.
        """
        super().__init__()
        name, count = Counter(loss.name for loss in losses).most_common(1)[0]
        if count > 1:
            raise UserError(f"two losses are called {name}; give yours another name")
        self.losses, self.num_classes, self.frame_size = list(losses), num_classes, frame_size
        self.novel_supervision: NovelSupervision = novel_supervision
        self.reference = reference
        self.num_labels = num_labels or num_classes + 1

    def forward(
        self,
        outputs: Outputs,
        batch: Batch,
        captions: Tensor,
        *,
        epoch: int,
        generator: torch.Generator | None = None,
        uniform: Uniform | None = None,
        targets: TargetCount | None = None,
    ) -> dict[str, Tensor]:
        """Return weighted losses by name.

        Args:
            outputs: outputs of a forward with the C base texts and auxiliary predictions, and with `clip_embeddings` if
                a loss of the epoch needs them. Without masks, all losses that need masks are left out.
            batch: batch with labels, binary labels and label maps.
            captions: B x D text embeddings; samples without caption take no part.
            epoch: number of the epoch, from 0, which decides the losses that take part.
            generator: generator of the random points at which masks are compared.
            uniform: source of these numbers instead of `generator`; `match` and `mask_losses` describe the calls.
            targets: result of `count_targets`, if the step called it before the model ran.

        Returns:
            Each loss under its name, and their sum as `total`. A loss with a value per prediction gives that of the
            final prediction under its name and the sum of the others, if there are any, under the name with `_aux`.
        """
        active = [loss for loss in self.active(epoch) if outputs.fused is not None or "masks" not in loss.needs]
        with torch.autocast(batch.pixels.device.type, enabled=False):
            step = self.make_step(outputs, batch, captions, generator, uniform, targets)
            computed = {loss.name: _weighted(loss, step) for loss in sorted(active, key=_order)}
            losses = {name: value for loss in active for name, value in computed[loss.name].items()}
            losses["total"] = torch.stack(list(losses.values())).sum()
        return losses

    def make_step(
        self,
        outputs: Outputs,
        batch: Batch,
        captions: Tensor,
        generator: torch.Generator | None = None,
        uniform: Uniform | None = None,
        targets: TargetCount | None = None,
    ) -> LossStep:
        """Prepare the inputs of the losses; arguments as in `forward`."""
        assert batch.labels is not None
        device = batch.pixels.device

        def draw(shape: tuple[int, ...]) -> Tensor:
            return torch.rand(shape, device=device, generator=generator)

        return LossStep(
            outputs,
            batch,
            captions,
            never_all_ignored(batch.labels, self.num_classes) if self.reference else batch.labels,
            binary_targets(batch, self.num_classes, self.novel_supervision),
            self.num_classes,
            self.frame_size,
            uniform or draw,
            targets,
        )

    def active(self, epoch: int) -> list[Loss]:
        """Return the losses that take part in an epoch."""
        return [loss for loss in self.losses if loss.start <= epoch and (loss.weight or "clip" not in loss.needs)]

    def needs(self, need: Need, epoch: int | None = None) -> bool:
        """Return True if a loss with a non-zero weight needs something, in an epoch or at all."""
        losses = self.losses if epoch is None else self.active(epoch)
        return any(loss.weight and need in loss.needs for loss in losses)

    @property
    def groups(self) -> dict[str, str]:
        """Return the console heading of each loss, by its name in the results of `forward`."""
        return {name: loss.group for loss in self.losses for name in (loss.name, f"{loss.name}_aux")}

    def count_targets(self, batch: Batch) -> TargetCount:
        """Start counting the batch's target masks over all processes."""
        assert batch.label_maps is not None
        return TargetCount(batch.label_maps, self.num_labels)


def _order(loss: Loss) -> int:
    """Order of computation: losses that draw random numbers come first, so a new loss at the end changes no other."""
    return 0 if "random" in loss.needs else 1 + ("masks" in loss.needs)


def _weighted(loss: Loss, step: LossStep) -> dict[str, Tensor]:
    value = loss.compute(step)
    if not value.ndim:
        return {loss.name: loss.weight * value}
    losses = {loss.name: loss.weight * value[0]}
    if len(value) > 1:
        losses[f"{loss.name}_aux"] = loss.weight * value[1:].sum()
    return losses
