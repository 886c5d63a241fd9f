"""Regions of a scan: connected places that fit a phrase best."""

from dataclasses import dataclass

import numpy as np

from xmask3d.geometry.components import components

MIN_POINTS = 50


@dataclass
class Region:
    """Group of points.

    Attributes:
        index: points of the region, ascending.
        center: 3, mean of the points in metres.
        low, high: 3 each, corners of the bounding box.
        score: mean similarity of the points.
    """

    index: np.ndarray
    center: np.ndarray
    low: np.ndarray
    high: np.ndarray
    score: float

    @classmethod
    def of(cls, points: np.ndarray, index: np.ndarray, score: float) -> "Region":
        """Return the region made of some rows of n x 3 points."""
        part = points[index].astype(np.float64)
        return cls(index, part.mean(0), part.min(0), part.max(0), score)


def best_regions(points: np.ndarray, similarity: np.ndarray, spacing: float, wanted: int = 5) -> list[Region]:
    """Find the places that fit a phrase best: connected parts above an optimal threshold of the similarities.

    Args:
        points: n x 3.
        similarity: n; higher values fit better.
        spacing: distance, in metres, up to which points count as touching.

    Returns:
        At most `wanted` regions, in falling order of the sum of their points' excess over the threshold.
    """
    if not len(points):
        return []
    threshold = _otsu(similarity)
    for _ in range(2):  # if most of the scene is something else, divide the upper part again
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
