"""The compiled loops of training samples, on NumPy arrays."""

import functools
from ctypes import c_float, c_int, c_int64

import numpy as np

from xmask3d.native.library import array_address as _at
from xmask3d.native.library import failure_of, library


@functools.cache
def available() -> bool:
    """Whether the loops are to be had on this machine."""
    return not failure_of("training samples")


def in_frustum(points: np.ndarray, planes: np.ndarray, least: float) -> np.ndarray:
    """Ascending indices, int64, of the points whose distance to each plane is at least `least`.

    Args:
        points: N x 3 float32.
        planes: 6 x 4 float32, unit normal and offset.

    Raises:
        ValueError: other shapes.
    """
    points, planes = np.ascontiguousarray(points, np.float32), np.ascontiguousarray(planes, np.float32)
    if points.shape[1:] != (3,) or planes.shape != (6, 4):
        raise ValueError(f"points {points.shape} and planes {planes.shape}: N x 3 and 6 x 4")
    index = np.empty(len(points) + 1, np.int64)
    found = library().xm_in_frustum(_at(points), c_int64(len(points)), _at(planes), c_float(least), _at(index))
    return index[:found]


def resize_bilinear(image: np.ndarray, columns: np.ndarray, rows: np.ndarray, table: np.ndarray) -> np.ndarray:
    """Resize 8-bit planes, giving each result the number that a table has for it.

    Args:
        image: C x h x w uint8, with any strides.
        columns, rows: W x 4 and H x 4 int32: two positions in the image and their weights in 1/2048.
        table: 256 float32.

    Returns:
        C x H x W float32.

    Raises:
        ValueError: other shapes or types, or a position outside of the image.
    """
    columns, rows = np.ascontiguousarray(columns, np.int32), np.ascontiguousarray(rows, np.int32)
    table = np.ascontiguousarray(table, np.float32)
    if image.dtype != np.uint8 or image.ndim != 3 or table.shape != (256,):
        raise ValueError(f"image {image.shape} of {image.dtype} and table {table.shape}: C x h x w of uint8 and 256")
    for taps, extent in ((columns, image.shape[2]), (rows, image.shape[1])):
        if taps.shape[1:] != (4,) or taps[:, :2].min() < 0 or taps[:, :2].max() >= extent:
            raise ValueError(f"positions {taps.shape}: N x 4, inside of {extent} pixels")
    out = np.empty((len(image), len(rows), len(columns)), np.float32)
    shape = c_int(len(image)), c_int(image.shape[1])
    across, down = (_at(columns), c_int(len(columns))), (_at(rows), c_int(len(rows)))
    library().xm_resize_bilinear(_at(image), *map(c_int64, image.strides), *shape, *across, *down, _at(table), _at(out))
    return out
