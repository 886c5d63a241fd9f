"""Voxels of a point cloud, found with a single sort, and the random rotation and scaling that precede it."""

from dataclasses import dataclass
from typing import Literal

import numpy as np

RandomSource = np.random.Generator | np.random.RandomState

_FNV_OFFSET = np.uint64(14695981039346656037)
_FNV_PRIME = np.uint64(1099511628211)


@dataclass(frozen=True)
class Voxels:
    """Occupied cells of a grid.

    Attributes:
        coords: V x 3 int32, distinct, each axis starting at 0.
        point_to_voxel: N int64, row of each point's voxel.
        first_point: V int64, lowest index of the points in each voxel; this point's feature is the voxel's.
    """

    coords: np.ndarray
    point_to_voxel: np.ndarray
    first_point: np.ndarray


def voxelise(
    points: np.ndarray,
    voxel_size: float,
    rotation: np.ndarray | None = None,
    scale: float = 1.0,
    order: Literal["grid", "hash"] = "grid",
) -> Voxels:
    """Sort points into cubic voxels.

    Args:
        points: N x 3, metres.
        voxel_size: edge of a voxel in metres, before `scale`.
        rotation: 3 x 3, applied to the points first.
        scale: factor by which the points are multiplied.
        order: ascending (x, y, z), or ascending hash, the order of the recorded numbers of the published pipeline.

    Returns:
        `Voxels`; empty for no points.
    """
    matrix = (np.eye(3) if rotation is None else np.asarray(rotation, np.float64)) * (scale / voxel_size)
    return quantise(np.floor(matrix @ np.asarray(points, np.float64).T).T, order)


def quantise(cells: np.ndarray, order: Literal["grid", "hash"] = "grid") -> Voxels:
    """Find the distinct rows of integer coordinates (N x 3), shifted so that each axis starts at 0."""
    count = len(cells)
    if not count:
        return Voxels(np.zeros((0, 3), np.int32), np.zeros(0, np.int64), np.zeros(0, np.int64))
    # Stored as three contiguous rows, since every step below works on one axis at a time.
    axes = np.ascontiguousarray(np.asarray(cells).T)
    cells = (axes - axes.min(1, keepdims=True)).astype(np.int64).T
    sorted_index, starts = _sort_cells(cells)
    voxel_of_sorted = np.cumsum(starts) - 1
    point_to_voxel = np.empty(count, np.int64)
    point_to_voxel[sorted_index] = voxel_of_sorted
    first_point = sorted_index[starts]
    if order == "hash":
        by_hash = np.argsort(fnv_hash(cells[first_point]), kind="stable")
        rank = np.empty_like(by_hash)
        rank[by_hash] = np.arange(len(by_hash))
        first_point, point_to_voxel = first_point[by_hash], rank[point_to_voxel]
    coords = np.stack([axis.take(first_point) for axis in cells.T], 1).astype(np.int32)
    return Voxels(coords, point_to_voxel, first_point)


def _sort_cells(cells: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return the order of points by (cell, index), and the positions where a new cell begins. Cells are at least 0."""
    count = len(cells)
    bits = [int(extent).bit_length() for extent in cells.max(0)]
    index_bits = int(count).bit_length()
    if sum(bits) + index_bits <= 63:
        # Cell and index share an integer, so that plain values are sorted, several times faster than an indirect sort.
        packed = (cells[:, 0] << (bits[1] + bits[2])) | (cells[:, 1] << bits[2]) | cells[:, 2]
        packed = np.sort((packed << index_bits) | np.arange(count))
        index = packed & ((1 << index_bits) - 1)
        key = packed >> index_bits
        changes = key[1:] != key[:-1]
    else:
        index = np.lexsort((cells[:, 2], cells[:, 1], cells[:, 0]))
        changes = (cells[index[1:]] != cells[index[:-1]]).any(1)
    return index, np.concatenate([[True], changes])


def fnv_hash(cells: np.ndarray) -> np.ndarray:
    """Compute a Fowler-Noll-Vo style 64-bit hash of integer rows (N x D): the voxel order of the published pipeline."""
    value = np.full(len(cells), _FNV_OFFSET, np.uint64)
    for axis in np.asarray(cells).astype(np.int64).astype(np.uint64).T:
        value = (value * _FNV_PRIME) ^ axis  # the overflow is intended
    return value


def axis_rotation(axis: int, angle: float) -> np.ndarray:
    """Return the 3 x 3 rotation by `angle` (radians, right-handed) about x, y or z (0, 1, 2)."""
    c, s = np.cos(angle), np.sin(angle)
    i, j = (axis + 1) % 3, (axis + 2) % 3
    matrix = np.eye(3)
    matrix[i, i], matrix[i, j], matrix[j, i], matrix[j, j] = c, -s, s, c
    return matrix


def random_rotation_scale(
    generator: RandomSource,
    tilt: float = np.pi / 64,
    turn: float = np.pi,
    scales: tuple[float, float] = (0.9, 1.1),
) -> tuple[np.ndarray, float]:
    """Draw the published augmentation: rotations about x, y and z in random order, and a scale.

    Returns:
        3 x 3 rotation and a factor.
    """
    angles = [generator.uniform(-limit, limit) for limit in (tilt, tilt, turn)]
    order = [0, 1, 2]
    generator.shuffle(order)
    rotation = np.eye(3)
    for axis in order:
        rotation = rotation @ axis_rotation(axis, angles[axis])
    return rotation, float(generator.uniform(*scales))
