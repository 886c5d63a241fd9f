"""The compiled loops that make a scanner's pictures and cloud of drawn rooms, on NumPy arrays."""

import functools
from collections.abc import Sequence
from ctypes import c_double, c_float, c_int64

import numpy as np
from numpy.typing import NDArray

from xmask3d.native.library import array_address as _at
from xmask3d.native.library import failure_of, library


@functools.cache
def available() -> bool:
    """Whether the loops are to be had on this machine."""
    return not failure_of("sensor and cloud of rooms")


def sensor_color(color: NDArray, gain: NDArray, grain: NDArray, strength: float) -> NDArray[np.uint8]:
    """Blur a picture by 1-2-1 both ways, multiply its channels by `gain`, and add `strength` times `grain`.

    Args:
        color: H x W x 3 uint8.
        gain: 3 float32.
        grain: H x W x 3 float32.

    Raises:
        ValueError: other shapes.
    """
    color, gain, grain = (_as(x, kind) for x, kind in ((color, np.uint8), (gain, np.float32), (grain, np.float32)))
    if color.ndim != 3 or color.shape[2] != 3 or grain.shape != color.shape or gain.shape != (3,):
        raise ValueError(f"color {color.shape}, gain {gain.shape} and grain {grain.shape}: H x W x 3, 3, H x W x 3")
    result = np.empty_like(color)
    size = c_int64(color.shape[0]), c_int64(color.shape[1])
    library().xm_sensor_color(_at(color), *size, _at(gain), _at(grain), c_float(strength), _at(result))
    return result


def sensor_depth(depth: NDArray, normal: NDArray, chance: NDArray) -> NDArray[np.uint16]:
    """What a depth camera makes of metres, in millimetres, 0 where it sees nothing. Args: H x W float32 each.

    Raises:
        ValueError: other shapes.
    """
    depth, normal, chance = (_as(x, np.float32) for x in (depth, normal, chance))
    if depth.ndim != 2 or normal.shape != depth.shape or chance.shape != depth.shape:
        raise ValueError(f"depth {depth.shape}, normal {normal.shape} and chance {chance.shape}: H x W each")
    result = np.empty(depth.shape, np.uint16)
    size = c_int64(depth.shape[0]), c_int64(depth.shape[1])
    library().xm_sensor_depth(_at(depth), *size, _at(normal), _at(chance), _at(result))
    return result


def fuse(
    pictures: Sequence[tuple[NDArray, NDArray, NDArray, NDArray, NDArray, int]],
    intrinsics: Sequence[float],
    factor: int,
    spacing: float,
) -> tuple[NDArray[np.float64], NDArray[np.int32]]:
    """One point a cell: the mean of the instance with most pixels there.

    Args:
        pictures: colours (H x W x 3 uint8), depth (float32, metres), instance (int32, -1 for nothing), label (int32),
            pose (4 x 4, camera to world), and of how many rows and columns one is taken.
        intrinsics: fx, cx, fy, cy of a frame, pixels.
        factor: how many pixels of a frame lie between two that are taken.
        spacing: edge of the cells, metres.

    Returns:
        N x 6 coordinates (metres) and colours (in [0, 1]), and N labels, in ascending order of cells.

    Raises:
        ValueError: pictures of other shapes.
    """
    room = sum((-(-p[1].shape[0] // p[5])) * (-(-p[1].shape[1] // p[5])) for p in pictures)
    values, instances, labels = np.empty((room, 6)), np.empty(room, np.int32), np.empty(room, np.int32)
    count = 0
    k = (c_double * 4)(*intrinsics)
    for color, depth, instance, label, pose, step in pictures:
        size = depth.shape
        if color.shape != (*size, 3) or instance.shape != size or label.shape != size or pose.shape != (4, 4):
            raise ValueError(f"color {color.shape}, depth {size}, instance {instance.shape} and label {label.shape}")
        arrays = _as(color, np.uint8), _as(depth, np.float32), _as(instance, np.int32), _as(label, np.int32)
        matrix = _as(pose, np.float64)
        numbers = (c_int64(n) for n in (*size, step, factor))
        targets = _at(values[count:]), _at(instances[count:]), _at(labels[count:])
        count += library().xm_lift(*map(_at, arrays), *numbers, k, _at(matrix), *targets)
    kept = library().xm_fuse(_at(values), _at(instances), _at(labels), c_int64(count), c_double(spacing))
    return values[:kept], labels[:kept]


def _as(array: NDArray, kind: type) -> NDArray:
    return np.ascontiguousarray(array, kind)
