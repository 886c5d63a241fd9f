"""Points and colours as stored in a file, and the range of its colour values."""

from typing import NamedTuple

import numpy as np

HIGH = 0.98  # quantile of the positive values that determines their range, so that a few outliers do not


class Raw(NamedTuple):
    """Contents of a file.

    Attributes:
        points: n x 3.
        colors: n x 3 uint8, or None if the file has none.
        notes: findings and corrections, one sentence each.
        units: units per metre, if they were given or had to be determined.
        painted: the colours are those of a mesh, where a single colour may be intended.
        pose: 4 x 4 camera-to-cloud pose, if the file states one.
        grid: height and width of an image, if points are in the order of its pixels.
        unitless: the coordinates have no scale, like those of reconstructions from pictures.
    """

    points: np.ndarray
    colors: np.ndarray | None
    notes: list[str]
    units: float | None
    painted: bool = False
    unitless: bool = False
    pose: np.ndarray | None = None
    grid: tuple[int, int] | None = None


def to_bytes(colors: np.ndarray, notes: list[str] | None = None) -> np.ndarray:
    """Convert colours to uint8, from numbers in 0..1, 0..100 (not all whole), 0..255 or 0..65535.

    A high quantile decides which range it is, and higher values are clipped; otherwise a single value slightly above 1,
    or a single white point of 65535 among bytes, would make a room black. Values that are not finite become 0. If many
    are below 0 and none is far above 1, the range is -1..1, as in processed data sets.

    Args:
        colors: any shape, channels last.
        notes: gets a sentence where colours are NaN or infinite.
    """
    if notes is not None and (lost := int((~np.isfinite(colors)).any(-1).sum())):
        notes.append(f"warning: {lost} of {len(colors)} points have colours that are NaN or infinite, taken as black")
    if colors.dtype == np.uint8:
        return colors
    whole = not np.issubdtype(colors.dtype, np.floating)
    values = np.where(np.isfinite(colors), colors, 0)
    lit = values[values > 0]
    high = float(np.quantile(lit, HIGH, method="lower")) if len(lit) else 0.0
    if high > 2 * 255:
        return (np.clip(values, 0, 65535) // 256).astype(np.uint8)
    scale = 255.0 if not whole and high <= 2 else 1.0
    if not whole and 2 < high <= values.max() == 100 and (values != np.rint(values)).any():
        scale = 2.55  # of 100
    if scale == 255.0 and (values < 0).mean() > 1 - HIGH:
        values = np.where(np.isfinite(colors), (values + 1) / 2, 0)
    return np.clip(np.rint(values * scale), 0, 255).astype(np.uint8)


def unpack_colors(words: np.ndarray) -> np.ndarray:
    """Return n x 3 uint8 colours from n four-byte numbers of any type that hold red, green and blue."""
    words = np.ascontiguousarray(words.reshape(-1).astype(words.dtype.str)).view(np.uint32)
    return np.stack([(words >> shift) & 255 for shift in (16, 8, 0)], 1).astype(np.uint8)


def note_on_range(colors: np.ndarray) -> list[str]:
    """Return a warning where none of n x 3 uint8 colours is bright: a dark room, or numbers in another range."""
    brightest = int(colors.max(initial=0))
    if brightest > 100:
        return []
    return [
        f"warning: no colour is above {brightest} of 255; otherwise lit, they are in another range "
        "than 0..1, 0..255 or 0..65535 (as 0..100, or 10 or 12 bits): bring them to one of these"
    ]


def single_color(colors: np.ndarray) -> tuple[int, ...] | None:
    """Find the single colour of all points, except for at most one in a thousand, or return None.

    Args:
        colors: n x 3 uint8.
    """
    color = np.median(colors, axis=0).astype(np.uint8)
    return tuple(color.tolist()) if (colors != color).any(1).mean() <= 0.001 else None
