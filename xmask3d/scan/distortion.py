"""Removal of lens distortion from pictures and depth maps, which are then read as those of a pinhole camera."""

from collections.abc import Callable
from functools import lru_cache
from typing import NamedTuple

import numpy as np


class Lens(NamedTuple):
    """Distortion as OpenCV defines it.

    Attributes:
        radial: up to 6 parameters k1 ... k6; for a fisheye k1 ... k4.
        tangential: p1, p2.
        fisheye: the radial parameters apply to the angle to the axis instead of its tangent.
    """

    radial: tuple[float, ...]
    tangential: tuple[float, float] = (0.0, 0.0)
    fisheye: bool = False

    def bend(self, x: np.ndarray, y: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Map x, y of a pinhole camera to the position in the lens's picture, all in units of the focal length."""
        k, square = (*self.radial, *(6 - len(self.radial)) * (0.0,)), x * x + y * y
        if self.fisheye:
            r = np.maximum(np.sqrt(square), 1e-9)
            angle = np.arctan(r)
            factor = angle * (1 + sum(k[i] * angle ** (2 * i + 2) for i in range(4))) / r
            return x * factor, y * factor
        factor = 1 + square * (k[0] + square * (k[1] + square * k[2]))
        factor = factor / (1 + square * (k[3] + square * (k[4] + square * k[5])))
        p1, p2 = self.tangential
        return (
            x * factor + 2 * p1 * x * y + p2 * (square + 2 * x * x),
            y * factor + p1 * (square + 2 * y * y) + 2 * p2 * x * y,
        )


def lens_of_colmap(model: str, values: list[float]) -> Lens | None:
    """Return the lens of a camera model of COLMAP.

    Args:
        model: name of the model.
        values: the model's parameters after those of the pinhole.

    Raises:
        KeyError: the model's distortion is not known here.
    """
    if not any(values):
        return None
    return {
        "SIMPLE_RADIAL": lambda: Lens((values[0],)),
        "RADIAL": lambda: Lens((values[0], values[1])),
        "OPENCV": lambda: Lens((values[0], values[1]), (values[2], values[3])),
        "FULL_OPENCV": lambda: Lens((values[0], values[1], *values[4:]), (values[2], values[3])),
        "OPENCV_FISHEYE": lambda: Lens(tuple(values), fisheye=True),
        "SIMPLE_RADIAL_FISHEYE": lambda: Lens((values[0],), fisheye=True),
        "RADIAL_FISHEYE": lambda: Lens((values[0], values[1]), fisheye=True),
    }[model]()


def undistorted(
    load: Callable[[int], np.ndarray], lenses: list[Lens | None], matrices: list[np.ndarray]
) -> Callable[[int], np.ndarray]:
    """Wrap a loader of pictures or depth maps so that it returns those of a pinhole camera; 0 outside.

    Args:
        load: maps the number of a frame to h x w or h x w x 3.
        lenses: one per frame, None for a pinhole.
        matrices: n x (3 x 3) pinhole matrices at the size of the pictures.
    """

    def load_straight(index: int) -> np.ndarray:
        picture, lens = load(index), lenses[index]
        if lens is None:
            return picture
        height, width = picture.shape[:2]
        at = _pixels(lens, tuple(matrices[index].ravel().tolist()), height, width)
        flat = picture.reshape(height * width, -1)
        straight = np.where(at[..., None] >= 0, flat[at.clip(0)], 0).astype(picture.dtype)
        return straight.reshape(picture.shape)

    return load_straight


@lru_cache(maxsize=4)  # frames of a camera share it; colour and depth differ
def _pixels(lens: Lens, matrix: tuple[float, ...], height: int, width: int) -> np.ndarray:
    """Return the nearest pixel of the lens's picture for each pixel of the undistorted one, h x w; -1 outside."""
    fx, _, cx, _, fy, cy = matrix[:6]
    x, y = np.meshgrid((np.arange(width) - cx) / fx, (np.arange(height) - cy) / fy)
    x, y = lens.bend(x, y)
    column, row = np.rint(x * fx + cx).astype(np.int64), np.rint(y * fy + cy).astype(np.int64)
    inside = (column >= 0) & (column < width) & (row >= 0) & (row < height)
    return np.where(inside, row * width + column, -1)
