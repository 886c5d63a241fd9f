"""Objects of a scene, from the labels of its points and the masks of its views. This is not part of the paper.

A mask of the model covers a class rather than an object, so masks joined over views give classes. Objects of the same
class are separated by the space between them. If labels divide one object, its parts touch, views vote alike on them
and masks cover them together; such parts are joined.
"""

from collections.abc import Collection, Sequence
from dataclasses import dataclass

import numpy as np
from scipy import sparse
from scipy.sparse.csgraph import connected_components

from xmask3d.geometry.components import components, renumber, touching
from xmask3d.geometry.nearest import point_spacing
from xmask3d.inference.region_labels import sum_regions

APART = 0.08  # metres between objects of one class
CONTACT = 0.04  # metres between parts of different classes that may be one object
ALIKE = 0.8  # smallest cosine between the votes on two parts of one object
TOGETHER = 0.7  # share of the smaller part's masks that must cover as much of the other part
SMALLEST = 50  # fewest points of an object
SMALLEST_SHARE = 1 / 2000  # fewest points of an object, as a share of the scene's
FEW = 100  # number of points at which an object's confidence is half that of its points
MASK_POINTS = 30  # fewest points of a mask that counts


@dataclass(frozen=True)
class Objects:
    """M objects of a scene of n points.

    Attributes:
        of_point: n int64, object of each point, numbered from 0 by falling size; -1 for none.
        classes: M int64, class of each object.
        confidences: M, confidence of each object in [0, 1], see `mean_confidences`.
    """

    of_point: np.ndarray
    classes: np.ndarray
    confidences: list[float]


def split_by_mask(point_index: np.ndarray, mask: np.ndarray) -> list[np.ndarray]:
    """Collect the points of each mask.

    Args:
        point_index: N, points of the scene.
        mask: N, number of the mask that owns the point in a view, -1 for none.

    Returns:
        The point indices (int32) of every mask with at least `MASK_POINTS` points.
    """
    order = np.argsort(mask, kind="stable")
    groups = np.split(order, np.flatnonzero(np.diff(mask[order])) + 1)
    return [point_index[rows].astype(np.int32) for rows in groups if len(rows) >= MASK_POINTS and mask[rows[0]] >= 0]


def find_objects(
    points: np.ndarray,
    labels: np.ndarray,
    votes: np.ndarray,
    confidence: np.ndarray,
    masks: Sequence[np.ndarray],
    structure: Collection[int] = (),
) -> Objects:
    """Separate the objects of a scene.

    Args:
        points: n x 3 metres.
        labels: n class ids, -1 for none.
        votes: n x K votes of the views on each point, not negative; zeros for points without votes.
        confidence: n, in [0, 1].
        masks: points of each mask of each view.
        structure: classes such as walls, which never belong to an object of another class.
    """
    smallest = max(SMALLEST, int(len(points) * SMALLEST_SHARE))
    spacing = point_spacing(points)
    part = renumber(components(points, labels, max(APART, 2 * spacing)), SMALLEST)
    pairs = touching(points, part, max(CONTACT, spacing))
    solid = ~np.isin(labels, list(structure))
    of_solid = np.zeros(int(part.max(initial=-1)) + 1, bool)
    of_solid[part[solid & (part >= 0)]] = True
    pairs = pairs[of_solid[pairs].all(1)]
    pairs = pairs[_alike(part, votes, pairs) & _together(part, masks, pairs)]
    graph = sparse.coo_matrix((np.ones(len(pairs)), (pairs[:, 0], pairs[:, 1])), shape=(len(of_solid),) * 2)
    joined = connected_components(graph, directed=False)[1]
    of_point = renumber(np.where(part >= 0, np.append(joined, -1)[part], -1), smallest)
    inside = of_point >= 0
    count = int(of_point.max(initial=-1)) + 1
    kinds = np.zeros((count, int(labels.max(initial=0)) + 1), np.int64)
    np.add.at(kinds, (of_point[inside], labels[inside]), 1)
    return Objects(of_point, kinds.argmax(1), mean_confidences(of_point, confidence, count))


def mean_confidences(of_point: np.ndarray, confidence: np.ndarray, count: int) -> list[float]:
    """Return the confidence of each of `count` objects: the mean over its points, reduced if they are few."""
    inside = of_point >= 0
    sizes = np.bincount(of_point[inside], minlength=count)
    sums = np.bincount(of_point[inside], confidence[inside], count)
    return (sums / (sizes + FEW)).tolist()


def _alike(part: np.ndarray, votes: np.ndarray, pairs: np.ndarray) -> np.ndarray:
    """Find which pairs of parts (E x 2) views voted alike on: E bool."""
    inside = part >= 0
    sums = sum_regions(part[inside], votes[inside]) if inside.any() else np.zeros((0, 1))
    sums /= np.maximum(np.linalg.norm(sums, axis=1, keepdims=True), 1e-12)
    return (sums[pairs[:, 0]] * sums[pairs[:, 1]]).sum(1) >= ALIKE


def _together(part: np.ndarray, masks: Sequence[np.ndarray], pairs: np.ndarray) -> np.ndarray:
    """Find which pairs of parts (E x 2) masks cover together: E bool. Larger parts have lower numbers."""
    if not masks:
        return np.zeros(len(pairs), bool)
    count = int(part.max(initial=-1)) + 1
    held = np.stack([np.bincount(part[mask] + 1, minlength=count + 1)[1:] for mask in masks])  # masks x parts
    larger, smaller = held[:, pairs[:, 0]], held[:, pairs[:, 1]]
    return np.minimum(larger, smaller).sum(0) > TOGETHER * np.maximum(smaller.sum(0), 1)
