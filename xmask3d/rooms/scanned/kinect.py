"""Depth of a structured-light camera: quantised disparity, flying pixels at edges, and surfaces without depth."""

import numpy as np
from numpy.typing import NDArray

from xmask3d.rooms.scanned.film import Film, PlainArray
from xmask3d.rooms.scanned.settings import ScanSettings

BASELINE = 0.075
"""Metres between the depth camera and its projector, as in a Kinect."""

BORDER = (4, 3, 8)
"""Pixels without depth at the top, left and right, where registered depth has no source."""


def sense_depth(film: Film, focal: float, settings: ScanSettings, rng: np.random.Generator) -> NDArray[np.uint16]:
    """Measure depth. Args: focal: focal length in pixels. Returns H x W millimetres, 0 where nothing is measured."""
    rows, columns = _jittered(film.depth.shape, settings.edge_jitter, rng)
    true = film.depth[rows, columns]
    depth = _flying(true, settings.flying, rng)
    lost = _lost(film, settings, rng)[rows, columns] | (true <= 0) | _shadowed(true, focal, settings.shadow)
    disparity = focal * BASELINE / np.maximum(depth, 0.1)
    noise = rng.standard_normal(depth.shape, dtype=np.float32)
    # Block matching uses neighbouring pixels, so neighbouring errors are similar.
    disparity += np.float32(settings.disparity_noise) * (0.6 * noise + 0.8 * _smooth(rng, depth.shape, 3))
    if settings.disparity_step > 0:
        disparity = np.round(disparity / settings.disparity_step) * settings.disparity_step
    measured = focal * BASELINE / np.maximum(disparity, 1e-3)
    measured *= 1 + np.float32(settings.warp) * _smooth(rng, depth.shape, 48)
    lost |= (measured < settings.reach[0]) | (measured > settings.reach[1])
    if settings.shadow > 0:
        top, left, right = BORDER
        lost[:top] = lost[:, :left] = lost[:, -right:] = True
    return np.where(lost, 0, np.clip(np.round(measured * 1000), 0, 65535)).astype(np.uint16)


def _jittered(
    shape: tuple[int, ...], strength: float, rng: np.random.Generator
) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Return the rows and columns from which each pixel reads its depth: ragged edges."""
    height, width = shape
    shift = rng.standard_normal((2, height, width), dtype=np.float32) * np.float32(strength)
    rows = np.clip(np.arange(height)[:, None] + np.rint(shift[0]).astype(np.int64), 0, height - 1)
    return rows, np.clip(np.arange(width) + np.rint(shift[1]).astype(np.int64), 0, width - 1)


def _flying(depth: PlainArray, probability: float, rng: np.random.Generator) -> PlainArray:
    """Put some pixels at jumps of depth between the two surfaces."""
    other = depth.copy()
    for axis in (0, 1):
        ahead = np.roll(depth, -1, axis)
        jump = np.abs(ahead - depth) > 0.05 * np.minimum(ahead, depth)
        last = (slice(None),) * axis + (-1,)
        jump[last] = False
        other = np.where(jump, ahead, other)
    edge = np.flatnonzero((other != depth) & (other > 0) & (depth > 0))
    edge = edge[rng.random(len(edge)) < probability]
    share = rng.random(len(edge), dtype=np.float32)
    result = depth.copy()
    result.flat[edge] += share * (other.flat[edge] - result.flat[edge])
    return result


def _shadowed(depth: PlainArray, focal: float, strength: float) -> NDArray[np.bool_]:
    """Return the pixels that a nearer surface hides from the projector, which is to the left of the camera."""
    if strength <= 0:
        return np.zeros(depth.shape, bool)
    place = np.arange(depth.shape[1]) + focal * BASELINE / np.maximum(depth, 0.1) * np.float32(strength)
    nearest = np.maximum.accumulate(np.where(depth > 0, place, -np.inf), axis=1)
    return nearest > place + 1.0


def _lost(film: Film, settings: ScanSettings, rng: np.random.Generator) -> NDArray[np.bool_]:
    """Return the pixels whose surface reflects no pattern; they form patches."""
    # In infrared light, surfaces that look black are mostly black too, and light fades with distance.
    dim = 1 / (1 + np.exp((film.albedo - 0.05 - 0.015 * film.depth) / 0.02))
    glint = 0.35 + 0.65 * np.clip((film.facing - 0.85) / 0.1, 0, 1)
    slant = np.clip((0.28 - film.facing) / 0.16, 0, 1)
    kept = (1 - settings.dark_loss * dim) * (1 - settings.shine_loss * film.shine * glint)
    kept *= 1 - settings.slant_loss * slant
    kept *= 1 - settings.glass_loss * film.outside
    chance = 0.3 * rng.random(film.depth.shape, dtype=np.float32) + 0.7 * _patches(rng, film.depth.shape)
    return kept < chance


def _patches(rng: np.random.Generator, shape: tuple[int, ...]) -> PlainArray:
    """Draw numbers in [0, 1] that are similar within patches of some pixels."""
    noise = _smooth(rng, shape, 6)
    return (1 / (1 + np.exp(-1.7 * noise))).astype(np.float32)


def _smooth(rng: np.random.Generator, shape: tuple[int, ...], step: int) -> PlainArray:
    """Draw noise of about unit variance that is linear between nodes `step` pixels apart."""
    height, width = shape
    nodes = rng.standard_normal((height // step + 2, width // step + 2), dtype=np.float32)
    y, x = np.arange(height, dtype=np.float32) / step, np.arange(width, dtype=np.float32) / step
    row, column = y.astype(np.int64), x.astype(np.int64)
    right = (x - column).astype(np.float32)
    wide = nodes[:, column] * (1 - right) + nodes[:, column + 1] * right
    down = (y - row).astype(np.float32)[:, None]
    return (wide[row] * (1 - down) + wide[row + 1] * down) * np.float32(1.5)
