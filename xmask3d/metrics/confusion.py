"""Confusion matrices, counted on any device and summed over processes."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import torch
import torch.distributed as dist
from torch import Tensor

from xmask3d.metrics.scores import Scores, Tally


class ConfusionMatrix:
    """Counts of points by true and predicted class."""

    def __init__(self, num_classes: int, device: torch.device | str = "cpu") -> None:
        self.num_classes = num_classes
        # The extra column is for points without a prediction, which are misses but do not count for any class.
        self.counts = torch.zeros(num_classes, num_classes + 1, dtype=torch.int64, device=device)

    def update(self, predicted: Tensor, truth: Tensor) -> None:
        """Count points.

        Args:
            predicted: N int64 class ids; anything outside 0..K-1 counts as no prediction.
            truth: N int64 class ids; points outside 0..K-1 are ignored.
        """
        classes = self.num_classes
        predicted = predicted.to(self.counts.device).reshape(-1).long()
        truth = truth.to(self.counts.device).reshape(-1).long()
        column = torch.where((predicted >= 0) & (predicted < classes), predicted, classes)
        counted = (truth >= 0) & (truth < classes)
        cells = torch.where(counted, truth, 0) * (classes + 1) + column
        self.counts.view(-1).scatter_add_(0, cells, counted.long())

    def reduce(self) -> ConfusionMatrix:
        """Sum over all processes, in place. With a single process nothing changes."""
        if dist.is_available() and dist.is_initialized():
            dist.all_reduce(self.counts)
        return self

    def areas(self) -> tuple[Tensor, Tensor, Tensor]:
        """Return K int64 areas each of intersection (hits), union and truth of the classes."""
        intersection, truth = self.counts.diagonal(), self.counts.sum(1)
        return intersection, truth + self.counts[:, :-1].sum(0) - intersection, truth

    def scores(self, groups: Mapping[str, Sequence[int]], headlines: Sequence[str] = ("hiou",)) -> Scores:
        """Compute scores by group of class ids, and headlines by name, see `find_headline`."""
        return Scores.of(Tally(self.counts.cpu().numpy(), groups), headlines)
