"""Fill of unlabelled points with the labels of their nearest neighbours."""

import numpy as np
import torch
from torch import Tensor

from xmask3d.geometry.nearest import nearest


def fill_owners(owner: Tensor, points: Tensor, point_batch: Tensor) -> Tensor:
    """Fill points that no mask owns with the nearest owned point of their view.

    Args:
        owner: N int64, -1 for none. points: N x 3. point_batch: N int64, ascending.

    Returns:
        N int64; -1 only in views without any owned point.
    """
    filled, positions, views = owner.cpu().numpy().copy(), points.cpu().numpy(), point_batch.cpu().numpy()
    bounds = np.flatnonzero(np.diff(views)) + 1
    for rows in np.split(np.arange(len(views)), bounds):
        missing = filled[rows] < 0
        if missing.any() and not missing.all():
            known = rows[~missing]
            filled[rows[missing]] = filled[known[nearest(positions[known], positions[rows[missing]])]]
    return torch.from_numpy(filled).to(owner.device)


def fill_unseen(points: np.ndarray, labels: np.ndarray) -> np.ndarray:
    """Give each unlabelled point the label of its nearest labelled point.

    Args:
        points: n x 3. labels: n int, -1 where unseen.

    Returns:
        n int; unchanged if all or none are labelled.
    """
    return UnseenFiller(points)(labels)


class UnseenFiller:
    """Fill of several label arrays of the same points, which finds neighbours once for arrays with the same gaps."""

    def __init__(self, points: np.ndarray) -> None:
        """Keep the points, n x 3."""
        self._points = points
        self._known: list[tuple[np.ndarray, np.ndarray]] = []  # the gaps, and the nearest labelled point of each

    def __call__(self, labels: np.ndarray) -> np.ndarray:
        """Fill labels as `fill_unseen` does."""
        unseen = labels < 0
        if not unseen.any() or unseen.all():
            return labels
        neighbours = next((neighbours for gaps, neighbours in self._known if np.array_equal(gaps, unseen)), None)
        if neighbours is None:
            seen = np.flatnonzero(~unseen)
            neighbours = seen[nearest(self._points[seen], self._points[unseen])]
            self._known.append((unseen, neighbours))
        filled = labels.copy()
        filled[unseen] = labels[neighbours]
        return filled
