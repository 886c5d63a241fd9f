"""True labels of a fused cloud: each point takes the object with the nearest surface."""

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray
from scipy.spatial import cKDTree

from xmask3d.rooms.scanned.film import Film
from xmask3d.rooms.viewpoints import Pose

CELL = 0.02
"""Edge of the cells in which one true point of each object is kept, metres."""

STRIDE = 2
"""Interval of the used rows and columns of a frame, smaller than the fusion's voxels at any distance in a room."""

NOBODY = -1


def true_surfaces(
    films: Sequence[Film], poses: Sequence[Pose], intrinsics: Sequence[NDArray[np.float64]]
) -> tuple[NDArray[np.float32], NDArray[np.int32]]:
    """Return points on all surfaces that any camera saw, n x 3, and the instance of each, from depth without noise.

    Args:
        poses: true poses.
    """
    points, instances = [], []
    for film, pose, k in zip(films, poses, intrinsics, strict=True):
        rows, columns = (STRIDE * index for index in np.nonzero(film.instance[::STRIDE, ::STRIDE] >= 0))
        z = film.depth[rows, columns]
        x = ((columns - k[0, 2]) / k[0, 0]).astype(np.float32) * z
        y = ((rows - k[1, 2]) / k[1, 1]).astype(np.float32) * z
        points.append(np.stack([x, y, z], 1) @ pose[:3, :3].T.astype(np.float32) + pose[:3, 3].astype(np.float32))
        instances.append(film.instance[rows, columns])
    place, instance = np.concatenate(points), np.concatenate(instances)
    cells = np.floor(place / CELL).astype(np.int64)
    cells -= cells.min(0)
    extent = cells.max(0) + 1
    key = ((cells[:, 0] * extent[1] + cells[:, 1]) * extent[2] + cells[:, 2]) * (instance.max() + 1) + instance
    first = np.unique(key, return_index=True)[1]
    return place[first], instance[first]


def nearest_instance(
    points: NDArray[np.float32], surface: NDArray[np.float32], instance: NDArray[np.int32], reach: float
) -> NDArray[np.int32]:
    """Return the instance of the nearest true point, or `NOBODY` if there is none within `reach` metres."""
    tree = cKDTree(surface, balanced_tree=False, compact_nodes=False)
    distance, row = tree.query(points, distance_upper_bound=reach)
    found = np.isfinite(distance)
    return np.where(found, instance[np.where(found, row, 0)], NOBODY).astype(np.int32)
