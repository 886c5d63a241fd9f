"""Connected regions of points, and objects from masks that several views agree on."""

from dataclasses import dataclass

import numpy as np
from scipy import sparse
from scipy.sparse.csgraph import connected_components
from scipy.spatial import cKDTree

from xmask3d.geometry.voxels import quantise

OVERLAP = 0.5  # share of the smaller of two masks that the other must hold for both to be one object
MIN_POINTS = 50


@dataclass
class Region:
    """Group of points.

    Attributes:
        index: its points, ascending.
        center: 3, mean in metres. low, high: 3 each, corners of its box.
        score: mean of what it was found by.
    """

    index: np.ndarray
    center: np.ndarray
    low: np.ndarray
    high: np.ndarray
    score: float

    @classmethod
    def of(cls, points: np.ndarray, index: np.ndarray, score: float) -> "Region":
        """Return the region of some rows of n x 3 points."""
        part = points[index].astype(np.float64)
        return cls(index, part.mean(0), part.min(0), part.max(0), score)


def components(points: np.ndarray, groups: np.ndarray, spacing: float) -> np.ndarray:
    """Find connected parts of equal groups: voxels of one group that touch (also at corners) are one part.

    Args:
        points: n x 3 metres. groups: n int, -1 left out. spacing: edge of the voxels in metres.

    Returns:
        n int64 part numbers from 0, -1 where left out.
    """
    parts = np.full(len(points), -1, np.int64)
    used = np.flatnonzero(groups >= 0)
    if not len(used):
        return parts
    voxels = quantise(np.floor(points[used].astype(np.float64) / spacing))
    # One node a voxel and group.
    nodes, node_of = np.unique(np.stack([voxels.point_to_voxel, groups[used]], 1), axis=0, return_inverse=True)
    node_of = node_of.reshape(-1)
    cells = voxels.coords[nodes[:, 0]].astype(np.float64)
    pairs = cKDTree(cells).query_pairs(1.8, output_type="ndarray")
    pairs = pairs[nodes[pairs[:, 0], 1] == nodes[pairs[:, 1], 1]]
    graph = sparse.coo_matrix((np.ones(len(pairs)), (pairs[:, 0], pairs[:, 1])), shape=(len(nodes), len(nodes)))
    _, part_of = connected_components(graph, directed=False)
    parts[used] = part_of[node_of]
    return parts


def best_regions(points: np.ndarray, similarity: np.ndarray, spacing: float, wanted: int = 5) -> list[Region]:
    """Find the places that fit a phrase best: connected parts above the best threshold of the similarities.

    Args:
        points: n x 3. similarity: n, higher fits better. spacing: metres across which points count as touching.

    Returns:
        At most `wanted` regions, by the sum over its points of how far they exceed the threshold.
    """
    if not len(points):
        return []
    threshold = _otsu(similarity)
    for _ in range(2):  # of a scene that is mostly something else, look at the upper part again
        above = similarity > threshold
        if above.mean() < 0.2 or above.sum() < 4 * MIN_POINTS:
            break
        threshold = _otsu(similarity[above])
    parts = components(points, np.where(similarity > threshold, 0, -1), spacing)
    regions = []
    for part in np.unique(parts[parts >= 0]):
        index = np.flatnonzero(parts == part)
        if len(index) >= min(MIN_POINTS, len(points) // 20 + 1):
            regions.append(Region.of(points, index, float(similarity[index].mean())))
    regions.sort(key=lambda region: (region.score - threshold) * len(region.index), reverse=True)
    return regions[:wanted]


def _otsu(values: np.ndarray) -> float:
    """Return the threshold between two classes of values with the largest variance between them."""
    low, high = float(values.min()), float(values.max())
    if not high > low:
        return low
    counts, edges = np.histogram(values, 128, (low, high))
    centers = (edges[1:] + edges[:-1]) / 2
    below = counts.cumsum()
    above = below[-1] - below
    sums = (counts * centers).cumsum()
    mean_below, mean_above = sums / np.maximum(below, 1), (sums[-1] - sums) / np.maximum(above, 1)
    best = int((below * above * (mean_below - mean_above) ** 2).argmax())
    return float(edges[best + 1])


def merge_masks(masks: list[np.ndarray], classes: list[int], labels: np.ndarray) -> np.ndarray:
    """Join masks of different views that are one object, and give each point its object.

    Two masks of one class are one object when the smaller shares half of its points with the other. A point belongs
    to the object that most of its masks are part of, if that has the point's label.

    Args:
        masks: point numbers of each mask. classes: class of each mask. labels: n final class ids.

    Returns:
        n int64 object numbers from 0 by size, -1 where none.
    """
    objects = np.full(len(labels), -1, np.int64)
    if not masks:
        return objects
    rows = np.repeat(np.arange(len(masks)), [len(mask) for mask in masks])
    members = sparse.csr_matrix((np.ones(len(rows)), (rows, np.concatenate(masks))), shape=(len(masks), len(labels)))
    sizes = np.array([len(mask) for mask in masks])
    common = (members @ members.T).tocoo()
    kind = np.asarray(classes)
    same = (kind[common.row] == kind[common.col]) & (
        common.data >= OVERLAP * np.minimum(sizes[common.row], sizes[common.col])
    )
    graph = sparse.coo_matrix((common.data[same], (common.row[same], common.col[same])), shape=common.shape)
    count, object_of = connected_components(graph, directed=False)
    to_object = sparse.csr_matrix((np.ones(len(masks)), (object_of, np.arange(len(masks)))), shape=(count, len(masks)))
    votes = (to_object @ members).tocoo()
    class_of_object = np.zeros(count, np.int64)
    class_of_object[object_of] = kind
    valid = class_of_object[votes.row] == labels[votes.col]
    object_, point, vote = votes.row[valid], votes.col[valid], votes.data[valid]
    order = np.lexsort((-object_, vote))  # the last assignment of a point stays: most votes, lowest object
    objects[point[order]] = object_[order]
    return renumber(objects)


def renumber(parts: np.ndarray, smallest: int = MIN_POINTS) -> np.ndarray:
    """Renumber parts from 0 by falling size; those of fewer than `smallest` points become -1."""
    names, inverse, counts = np.unique(parts, return_inverse=True, return_counts=True)
    keep = (names >= 0) & (counts >= smallest)
    order = np.argsort(-counts, kind="stable")
    order = order[keep[order]]
    new = np.full(len(names), -1, np.int64)
    new[order] = np.arange(len(order))
    return new[inverse.reshape(-1)]
