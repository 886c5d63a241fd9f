"""Fusion of posed pictures to a point cloud, as in a scanner."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from xmask3d.rooms.render import Frame


@dataclass(frozen=True)
class Picture:
    """Picture of one camera. Args: pose: 4 x 4, camera to world; step: interval of the rows and columns in use."""

    frame: Frame
    pose: NDArray[np.float64]
    step: int


def fuse(
    pictures: Sequence[Picture], intrinsics: NDArray[np.float64], factor: int, spacing: float
) -> tuple[NDArray[np.float64], NDArray[np.float64], NDArray[np.int32], NDArray[np.int64]]:
    """Return a point for each cell in which a camera saw a surface: the mean of the cell's most frequent instance.

    Args:
        intrinsics: 3 x 3 or larger, of a frame of full size.
        factor: distance between the used pixels of a frame, in pixels.
        spacing: edge of the cells, metres.

    Returns:
        Coordinates (N x 3, metres), colours (N x 3, in [0, 1]), labels (N) and instances (N), in ascending order of
        cells.
    """
    parts = [_lift(picture, intrinsics, factor) for picture in pictures]
    points, colors, instances, labels = (np.concatenate(column) for column in zip(*parts, strict=True))
    if not len(points):
        return points, colors, labels, instances
    cell = np.floor(points / spacing).astype(np.int64)
    cell -= cell.min(0)
    extent = cell.max(0) + 1
    key = (cell[:, 0] * extent[1] + cell[:, 1]) * extent[2] + cell[:, 2]
    # Within a cell only the instance with most pixels counts; otherwise edges would be blurred.
    pair, inverse, count = np.unique(key * (instances.max() + 1) + instances, return_inverse=True, return_counts=True)
    mean = np.stack([np.bincount(inverse, weights) / count for weights in (*points.T, *colors.T)], -1)
    label = np.zeros(len(pair), np.int32)
    label[inverse] = labels
    owner = pair // (instances.max() + 1)
    order = np.lexsort((-count, owner))
    keep = order[np.concatenate([[True], np.diff(owner[order]) > 0])]
    return mean[keep, :3], mean[keep, 3:], label[keep], pair[keep] % (instances.max() + 1)


def _arrays(frame: Frame) -> tuple[NDArray, NDArray, NDArray, NDArray]:
    return frame.color, frame.depth, frame.instance, frame.label


def _lift(picture: Picture, k: NDArray[np.float64], factor: int) -> tuple[NDArray, NDArray, NDArray, NDArray]:
    """Return world points (N x 3), colours in [0, 1], instances and labels of the pixels that hit something."""
    color, depth, instance, label = (array[:: picture.step, :: picture.step] for array in _arrays(picture.frame))
    rows, columns = np.nonzero(instance >= 0)
    z = depth[rows, columns].astype(np.float64)
    x, y = columns * factor, rows * factor
    local = np.stack([(x - k[0, 2]) / k[0, 0] * z, (y - k[1, 2]) / k[1, 1] * z, z], -1)
    return (
        local @ picture.pose[:3, :3].T + picture.pose[:3, 3],
        color[rows, columns] / 255.0,
        instance[rows, columns].astype(np.int64),
        label[rows, columns],
    )
