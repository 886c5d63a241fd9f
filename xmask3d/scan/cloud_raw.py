"""Points and colours as a file has them, and the range that its colour numbers are in."""

from typing import NamedTuple

import numpy as np

HIGH = 0.98  # quantile of the numbers above 0 that decides their range: a few outliers do not


class Raw(NamedTuple):
    """Contents of a file.

    Attributes:
        points: n x 3.
        colors: n x 3 uint8, or None where the file has none.
        notes: findings and corrections, one sentence each.
        units: units a metre, where they were given or had to be known.
        painted: the colours are a mesh's, where a single one may be meant.
        pose: 4 x 4 of the camera, camera to cloud, where the file states one.
        grid: height and width of the image whose pixels the points are in the order of.
        unitless: the numbers have no scale, as those of reconstructions from pictures.
    """

    points: np.ndarray
    colors: np.ndarray | None
    notes: list[str]
    units: float | None
    painted: bool = False
    unitless: bool = False
    pose: np.ndarray | None = None
    grid: tuple[int, int] | None = None


def to_bytes(colors: np.ndarray) -> np.ndarray:
    """Convert colours to uint8, from numbers in 0..1, 0..255 or 0..65535.

    A high quantile decides which of these is meant, and what lies above is clipped: one number a hair above 1, or one
    white point of 65535 among bytes, would else make a room black. Numbers that are not finite become 0. Where many are
    below 0 and none of the others far above 1, they are in -1..1, as in processed data sets.

    Args:
        colors: any shape.
    """
    if colors.dtype == np.uint8:
        return colors
    whole = not np.issubdtype(colors.dtype, np.floating)
    values = np.where(np.isfinite(colors), colors, 0)
    lit = values[values > 0]
    high = float(np.quantile(lit, HIGH, method="lower")) if len(lit) else 0.0
    if high > 2 * 255:
        return (np.clip(values, 0, 65535) // 256).astype(np.uint8)
    scale = 255 if not whole and high <= 2 else 1
    if scale == 255 and (values < 0).mean() > 1 - HIGH:
        values = np.where(np.isfinite(colors), (values + 1) / 2, 0)
    return np.clip(np.rint(values * scale), 0, 255).astype(np.uint8)


def unpack_colors(words: np.ndarray) -> np.ndarray:
    """Return n x 3 uint8 colours of n numbers of four bytes that hold red, green and blue, whatever their type."""
    words = np.ascontiguousarray(words.reshape(-1).astype(words.dtype.str)).view(np.uint32)
    return np.stack([(words >> shift) & 255 for shift in (16, 8, 0)], 1).astype(np.uint8)


def single_color(colors: np.ndarray) -> tuple[int, ...] | None:
    """Find the one colour that all but at most one of a thousand points have, or None.

    Args:
        colors: n x 3 uint8.
    """
    color = np.median(colors, axis=0).astype(np.uint8)
    return tuple(color.tolist()) if (colors != color).any(1).mean() <= 0.001 else None
