"""Votes of a scene's views on the classes of its points (paper section 3.5)."""

import torch
from torch import Tensor

WHOLE_VOTE = 1 << 14  # vote of a probability of 1; integers have the same sum in any order
POINTS_AT_ONCE = 1 << 12  # points whose votes are compared at a time


class SceneVotes:
    """Votes of a scene's views on each of its points: one label per view as published, or all probabilities."""

    def __init__(self, num_points: int, num_classes: int, device: torch.device | str = "cpu") -> None:
        self._votes = torch.zeros(num_points, num_classes, dtype=torch.int32, device=device)

    def add(self, point_index: Tensor, labels: Tensor) -> None:
        """Count one vote per row.

        Args:
            point_index: N int64, points of the scene; a point that several views see may be repeated.
            labels: N int64 class ids; -1 abstains.
        """
        point_index, labels = point_index.to(self._votes.device), labels.to(self._votes.device)
        cells = point_index * self._votes.shape[1] + labels.clamp(min=0)
        self._votes.view(-1).scatter_add_(0, cells, (labels >= 0).to(self._votes.dtype))

    def add_probabilities(self, point_index: Tensor, probabilities: Tensor) -> None:
        """Count each row's probabilities as parts of a vote; one set of votes takes either probabilities or labels.

        Args:
            point_index: N int64, as for `add`.
            probabilities: N x K; a row of zeros abstains.
        """
        parts = (probabilities * WHOLE_VOTE).round().to(self._votes.device, self._votes.dtype)
        self._votes.index_add_(0, point_index.to(self._votes.device), parts)

    @property
    def counts(self) -> Tensor:
        """Votes, number of points x K int32; probabilities are counted in units of `1 / WHOLE_VOTE`."""
        return self._votes

    def result(self) -> Tensor:
        """Return the class id with most votes for every point, the lowest one in a tie; -1 where no view voted."""
        classes = self._votes.shape[1]
        lower_first = torch.arange(classes - 1, -1, -1, device=self._votes.device)
        # argmax does not promise which of several equal numbers it takes, so the lower id is made the larger number.
        # Blocks of points bound the memory, because these numbers are twice as wide as the votes.
        labels = torch.empty(len(self._votes), dtype=torch.int64, device=self._votes.device)
        for start in range(0, len(labels), POINTS_AT_ONCE):
            votes = self._votes[start : start + POINTS_AT_ONCE]
            best = votes.long().mul_(classes).add_(lower_first).argmax(1)
            labels[start : start + POINTS_AT_ONCE] = torch.where(votes.any(1), best, -1)
        return labels
