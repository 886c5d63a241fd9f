"""Contract of a loss, and its inputs in a training step."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property
from typing import Any, Literal, Protocol, TypeVar

import torch
from torch import Tensor

from xmask3d.data.batch import Batch
from xmask3d.losses.mask_losses import TargetCount
from xmask3d.losses.sampling import Uniform
from xmask3d.models.outputs import Fused, Outputs
from xmask3d.models.similarity import at_least_float32

Need = Literal["masks", "captions", "clip", "regions", "random"]
T = TypeVar("T")


class Loss(Protocol):
    """Term of the training loss; a class that derives from this one inherits the defaults.

    Attributes:
        name: name in logs.
        group: heading of its sum in a console line.
        weight: factor of the loss in the total.
        start: first epoch (from 0) in which it takes part.
        needs: inputs of the loss. "masks" means the 2D branch: mask predictions, fused features and label maps;
            "captions" means sentences about views; "clip" means CLIP embeddings of the final masks, which take a
            network to compute and are left out at weight 0; "regions" means CLIP embeddings of the regions that stand
            in for labels; "random" means random numbers.
    """

    name: str
    group: str
    weight: float
    start: int = 0
    needs: frozenset[Need] = frozenset()

    def compute(self, step: LossStep) -> Tensor:
        """Compute the loss of a batch, not weighted.

        Returns:
            A scalar, or a number for each mask prediction, the final one first; the sum of the others is logged under
            the name with `_aux`.
        """


@dataclass(eq=False)
class LossStep:
    """Batch, outputs of the network, and quantities derived from them that losses share; all in float32 or wider.

    Attributes:
        outputs: outputs of a forward with the C base texts.
        batch: B views with labels, binary labels and label maps.
        captions: B x D text embeddings; see `captioned`.
        labels: N int64 training labels of the points, C for points without a base label.
        binary_targets: N int64, 1 base, 0 novel (or unlabelled), -1 unknown.
        num_classes: C, of the base classes.
        frame_size: height and width of the grid that the points' pixels are on.
        uniform: draws random numbers.
        targets: number of target masks, if it was counted before the model ran.
    """

    outputs: Outputs
    batch: Batch
    captions: Tensor
    labels: Tensor
    binary_targets: Tensor
    num_classes: int
    frame_size: tuple[int, int]
    uniform: Uniform
    targets: TargetCount | None = None

    def __post_init__(self) -> None:
        self._known: dict[Any, Any] = {}

    def once(self, compute: Callable[[LossStep], T]) -> T:
        """Return the result of `compute` on the step, computed once for all losses that share it."""
        if compute not in self._known:
            self._known[compute] = compute(self)
        return self._known[compute]

    @property
    def fused(self) -> Fused:
        """Features that masks give to points, for losses that need masks."""
        assert self.outputs.fused is not None, "the loss does not say that it needs masks"
        return self.outputs.fused

    def point_features(self, kind: Literal["fused", "3d"]) -> tuple[Tensor, Tensor]:
        """Return the U x D distinct features, and the row of each point among them, N int64."""
        if kind == "fused":
            return self._fused_rows, self.fused.point_to_row
        return self.voxels, self.outputs.point_to_voxel

    @cached_property
    def voxels(self) -> Tensor:
        """Return the 3D feature of each voxel, V x D."""
        return at_least_float32(self.outputs.voxels_3d)

    @cached_property
    def class_embeddings(self) -> Tensor:
        """Text embeddings of the classes, (C + 1) x D, null last."""
        return at_least_float32(self.outputs.class_embeddings)

    @cached_property
    def temperature(self) -> Tensor:
        """Factor of cosine similarities, a scalar."""
        return at_least_float32(self.outputs.temperature)

    @cached_property
    def captioned(self) -> Tensor:
        """Views that have a caption, B bool."""
        captioned = torch.tensor([bool(caption) for caption in self.batch.captions])
        return captioned.to(self.labels.device, non_blocking=True)

    @cached_property
    def _fused_rows(self) -> Tensor:
        return at_least_float32(self.fused.rows)
