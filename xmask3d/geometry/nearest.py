"""Nearest neighbours, fast also for points far from all others, and the typical distance between points."""

import numpy as np


def nearest(points: np.ndarray, queries: np.ndarray) -> np.ndarray:
    """Find the nearest of some points for each query, by the Euclidean distance.

    A scan has wide gaps, so many queries are metres away from a surface whose points are all at nearly the same
    distance. A tree split at medians, scipy's default, has long thin boxes there and searches most of the surface,
    which takes about 3 ms per query among half a million points. Split in the middle of each box, as here, it takes
    0.08 ms.

    Args:
        points: n x 3, at least one. queries: m x 3.

    Returns:
        m int64, rows of `points`.
    """
    from scipy.spatial import cKDTree  # imported here because it is slow and most commands do not need it

    return cKDTree(points, balanced_tree=False, compact_nodes=False).query(queries)[1]


def point_spacing(points: np.ndarray) -> float:
    """Return the distance in metres up to which neighbours touch: 1.5 times their typical spacing."""
    from scipy.spatial import cKDTree  # as above

    if len(points) < 2:
        return 0.05
    some = points[:: max(1, len(points) // 500)]
    return float(np.clip(np.median(cKDTree(points).query(some, k=2)[0][:, 1]), 1e-4, 1.0)) * 1.5
