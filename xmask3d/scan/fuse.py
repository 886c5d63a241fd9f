"""Fusion of posed depth maps to a cloud: averages on a voxel grid, weighted by confidence."""

from collections.abc import Callable, Iterable
from dataclasses import dataclass

import numpy as np

from xmask3d.errors import UserError

OFFSET = 1 << 20  # voxel coordinates are in -2^20 .. 2^20, 20 km at 2 cm
JUMP = 0.04  # larger steps between neighbouring pixels, as a share of the depth, are edges, where sensors invent points


@dataclass
class FusedCloud:
    """Cloud fused from frames.

    Attributes:
        points: n x 3 float32 metres. colors: n x 3 float32 in [-1, 1].
        weight: n float32, sum of measurement weights. frames: n int32, number of frames that measured a voxel.
        voxel_size: edge of the voxels in metres.
    """

    points: np.ndarray
    colors: np.ndarray
    weight: np.ndarray
    frames: np.ndarray
    voxel_size: float


def measurement_weight(depth: np.ndarray) -> np.ndarray:
    """Weight each pixel of a depth map (h x w, metres) by 1/z^2, as for structured light; 0 at edges and gaps."""
    weight = np.zeros_like(depth)
    known = depth > 0
    weight[known] = 1 / np.maximum(depth[known], 0.3) ** 2
    for axis in (0, 1):
        ahead = np.moveaxis(depth, axis, 0)
        step = np.abs(np.diff(ahead, axis=0)) > JUMP * np.minimum(ahead[1:], ahead[:-1])
        target = np.moveaxis(weight, axis, 0)
        target[1:][step] = 0
        target[:-1][step] = 0
    return weight


class VoxelFusion:
    """Fusion of frames into a sparse grid; memory grows with the occupied voxels, not with the number of frames."""

    def __init__(self, voxel_size: float = 0.02, max_voxels: int = 8_000_000):
        self.voxel_size = voxel_size
        self.max_voxels = max_voxels
        self.keys = np.zeros(0, np.int64)
        # weight, number of frames, weighted offset in the voxel, weighted colour
        self.sums = np.zeros((0, 8), np.float32)

    def add(self, points: np.ndarray, colors: np.ndarray, weight: np.ndarray) -> None:
        """Add the measurements of a frame: n x 3 metres, n x 3 in [-1, 1], n confidences (0 is ignored)."""
        use = (weight > 0) & np.isfinite(points).all(1)
        points, colors, weight = points[use], colors[use], weight[use].astype(np.float32)[:, None]
        cells = np.floor(points.astype(np.float64) / self.voxel_size)
        near = (np.abs(cells) < OFFSET).all(1)
        cells, points, colors, weight = cells[near].astype(np.int64), points[near], colors[near], weight[near]
        if not len(cells):
            return
        inside = (points - (cells + 0.5) * self.voxel_size).astype(np.float32)
        values = np.concatenate([weight, np.zeros_like(weight), inside * weight, colors * weight], 1)
        keys, sums = _merge(_pack(cells), values)
        sums[:, 1] = 1
        self.keys, self.sums = _merge(np.concatenate([self.keys, keys]), np.concatenate([self.sums, sums]))
        while len(self.keys) > self.max_voxels:
            self._coarsen()

    def _coarsen(self) -> None:
        """Double the edge of the voxels; accumulated values are moved to the parent's centre."""
        cells = _unpack(self.keys)
        parents = np.floor_divide(cells, 2)
        shift = ((cells + 0.5) - (parents * 2 + 1)) * self.voxel_size
        self.sums[:, 2:5] += shift.astype(np.float32) * self.sums[:, :1]
        self.keys, self.sums = _merge(_pack(parents), self.sums)
        self.voxel_size *= 2

    def result(self, min_frames: int = 1) -> FusedCloud:
        """Return the averages of voxels measured in at least `min_frames` frames."""
        use = self.sums[:, 1] >= min_frames
        sums, cells = self.sums[use], _unpack(self.keys[use])
        weight = np.maximum(sums[:, :1], 1e-12)
        points = (cells + 0.5) * self.voxel_size + sums[:, 2:5] / weight
        return FusedCloud(
            points=points.astype(np.float32),
            colors=np.clip(sums[:, 5:8] / weight, -1, 1).astype(np.float32),
            weight=sums[:, 0],
            frames=sums[:, 1].astype(np.int32),
            voxel_size=self.voxel_size,
        )


def fuse(
    frames: Iterable[int],
    load: Callable[[int], tuple[np.ndarray, np.ndarray, np.ndarray]],
    voxel_size: float = 0.02,
    max_voxels: int = 8_000_000,
) -> FusedCloud:
    """Fuse frames into one cloud.

    Args:
        frames: numbers of the frames.
        load: maps a frame to depth h x w in metres (0 unknown), points h x w x 3 in world coordinates, and the picture
            h x w x 3 uint8 on the same grid.
        voxel_size: metres; doubled until there are at most `max_voxels`.

    Raises:
        UserError: no frame has a measurement.
    """
    fusion, count = VoxelFusion(voxel_size, max_voxels), 0
    for frame in frames:
        depth, points, picture = load(frame)
        colors = picture.reshape(-1, 3).astype(np.float32) / 127.5 - 1
        fusion.add(points.reshape(-1, 3), colors, measurement_weight(depth).ravel())
        count += 1
    # With many frames, a voxel measured once is mostly noise at an edge; with few frames it may be the only
    # measurement.
    typical = float(np.median(fusion.sums[:, 1])) if len(fusion.sums) else 0
    cloud = fusion.result(min_frames=2 if typical >= 4 else 1)
    if not len(cloud.points):
        raise UserError(f"fusing {count} depth maps gave no point; are they empty, or is the depth scale wrong?")
    return cloud


def _pack(cells: np.ndarray) -> np.ndarray:
    shifted = cells + OFFSET
    return (shifted[:, 0] << 42) | (shifted[:, 1] << 21) | shifted[:, 2]


def _unpack(keys: np.ndarray) -> np.ndarray:
    mask = (1 << 21) - 1
    return np.stack([keys >> 42, (keys >> 21) & mask, keys & mask], 1) - OFFSET


def _merge(keys: np.ndarray, values: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Sum the rows of equal keys; the returned keys are ascending."""
    order = np.argsort(keys, kind="stable")
    keys, values = keys[order], values[order]
    starts = np.flatnonzero(np.concatenate([[True], keys[1:] != keys[:-1]]))
    return keys[starts], np.add.reduceat(values, starts, axis=0)
