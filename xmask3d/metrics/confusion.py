"""Intersection over union of classes, its means over base and novel classes, and their harmonic mean."""

from __future__ import annotations

from dataclasses import dataclass

import torch
import torch.distributed as dist
from torch import Tensor


@dataclass(frozen=True)
class Scores:
    """Scores of a segmentation, all in [0, 1].

    Attributes:
        iou: K floats, intersection over union; 0 for a class that is neither in the truth nor predicted.
        accuracy: K floats, share of a class's points that are labelled right.
        counts: K, points of each class in the truth.
        miou_base, miou_novel: means of `iou`; 0 for an empty set of classes.
        hiou: harmonic mean of the two.
        miou: mean over all classes. mean_accuracy: mean of `accuracy`.
        all_accuracy: share of all points that are labelled right.
        accuracy_base, accuracy_novel: means of `accuracy`.
    """

    iou: list[float]
    accuracy: list[float]
    counts: list[int]
    miou_base: float
    miou_novel: float
    hiou: float
    miou: float
    mean_accuracy: float
    all_accuracy: float
    accuracy_base: float
    accuracy_novel: float


class ConfusionMatrix:
    """Counts points by true and predicted class."""

    def __init__(self, num_classes: int, device: torch.device | str = "cpu") -> None:
        self.num_classes = num_classes
        # One more column for points without prediction: they are misses, but of no class.
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
        """Sum over all processes, in place; does nothing in a single one."""
        if dist.is_available() and dist.is_initialized():
            dist.all_reduce(self.counts)
        return self

    def areas(self) -> tuple[Tensor, Tensor, Tensor]:
        """Points of each class in prediction and truth, in either, and in the truth: three times K int64."""
        intersection, truth = self.counts.diagonal(), self.counts.sum(1)
        return intersection, truth + self.counts[:, :-1].sum(0) - intersection, truth

    def scores(self, base: list[int] | tuple[int, ...], novel: list[int] | tuple[int, ...]) -> Scores:
        """Scores over base and novel class ids."""
        hits, union, truth = (area.double().cpu() for area in self.areas())
        iou, accuracy = hits / union.clamp(min=1), hits / truth.clamp(min=1)
        miou_base, miou_novel = _mean(iou, base), _mean(iou, novel)
        return Scores(
            iou=iou.tolist(),
            accuracy=accuracy.tolist(),
            counts=truth.long().tolist(),
            miou_base=miou_base,
            miou_novel=miou_novel,
            hiou=harmonic_mean(miou_base, miou_novel),
            miou=float(iou.mean()),
            mean_accuracy=float(accuracy.mean()),
            all_accuracy=float(hits.sum() / truth.sum().clamp(min=1)),
            accuracy_base=_mean(accuracy, base),
            accuracy_novel=_mean(accuracy, novel),
        )


def harmonic_mean(a: float, b: float) -> float:
    """2ab / (a + b), 0 if both are 0."""
    return 2 * a * b / (a + b) if a + b > 0 else 0.0


def _mean(values: Tensor, classes: list[int] | tuple[int, ...]) -> float:
    return float(values[list(classes)].mean()) if len(classes) else 0.0
