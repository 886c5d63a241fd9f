"""Resizing of pictures and label maps."""

from functools import lru_cache

import numpy as np


def resize_bilinear(image: np.ndarray, size: tuple[int, int]) -> np.ndarray:
    """Resize 8-bit pictures as the published pipeline did: bilinear, half-pixel centres, 11-bit fixed-point weights.

    The products are truncated instead of rounded, as in the common fixed-point routine. The frozen networks were given
    such images, and the results are equal to the last bit.

    Args:
        image: ... x h x w uint8 (channels first).
        size: (height, width).

    Returns:
        ... x height x width uint8.
    """
    if image.shape[-2:] == tuple(size):
        return image
    planes = image.reshape(-1, *image.shape[-2:])
    resized = np.empty((len(planes), *size), np.uint8)
    left, right, left_weight, right_weight = _taps(image.shape[-1], size[1], edge_weight=False)
    upper, lower, upper_weight, lower_weight = _taps(image.shape[-2], size[0], edge_weight=True)
    # one channel at a time, which stays in the processor's cache
    for plane, target in zip(planes, resized, strict=True):
        rows = np.multiply(plane.take(left, 1), left_weight, dtype=np.int32)
        rows += np.multiply(plane.take(right, 1), right_weight, dtype=np.int32)
        rows >>= 4
        above = rows.take(upper, 0)
        above *= upper_weight[:, None]
        above >>= 16
        below = rows.take(lower, 0)
        below *= lower_weight[:, None]
        below >>= 16
        above += below
        above += 2
        above >>= 2
        target[:] = above
    return resized.reshape(*image.shape[:-2], *size)


def resize_to_unit(image: np.ndarray, size: tuple[int, int]) -> np.ndarray:
    """Apply `resize_bilinear` and divide by 255.

    Args:
        image: C x h x w uint8.
        size: (height, width).

    Returns:
        C x height x width float32 in [0, 1].
    """
    return np.divide(resize_bilinear(image, size), np.float32(255), dtype=np.float32)


@lru_cache
def _taps(source: int, target: int, edge_weight: bool) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    """Return the two source positions of each target position, and their weights in units of 1/2048.

    Beyond the edge both positions are the edge. `edge_weight` keeps the weight divided between them, which matters
    because products are truncated.
    """
    position = ((np.arange(target) + 0.5) * (source / target) - 0.5).astype(np.float32)
    first = np.floor(position).astype(np.int64)
    share = position - first
    if not edge_weight:
        share = np.where((first < 0) | (first >= source - 1), 0, share)
    second_weight = np.rint(share * 2048).astype(np.int32)
    return np.clip(first, 0, source - 1), np.clip(first + 1, 0, source - 1), 2048 - second_weight, second_weight


def resize_nearest(values: np.ndarray, size: tuple[int, int]) -> np.ndarray:
    """Resize h x w values to (height, width) by taking pixel floor(i * source / target)."""
    if values.shape == tuple(size):
        return values
    rows = np.arange(size[0]) * values.shape[0] // size[0]
    columns = np.arange(size[1]) * values.shape[1] // size[1]
    return np.take(np.take(values, rows, 0), columns, 1)
