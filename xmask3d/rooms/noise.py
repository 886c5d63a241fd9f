"""Noise of a real depth camera: depth noise that grows with distance, holes, grain, wrong exposure."""

import numpy as np
from numpy.typing import NDArray


def sensor_color(color: NDArray[np.uint8], exposure: float, rng: np.random.Generator) -> NDArray[np.uint8]:
    """Make a picture slightly soft and grainy, H x W x 3 uint8.

    Args:
        color: H x W x 3.
        exposure: factor.
    """
    gain = (exposure * rng.uniform(0.97, 1.03, 3)).astype(np.float32)
    grain = rng.standard_normal(color.shape, dtype=np.float32)
    strength = np.float32(rng.uniform(1.5, 4.0))
    image: NDArray[np.floating] = color.astype(np.float32)
    # A 1-2-1 blur softens the edges that come from casting a single ray per pixel.
    image = _blurred(_blurred(image).swapaxes(0, 1)).swapaxes(0, 1)
    image *= gain
    image += grain * strength
    return np.clip(image, 0, 255, out=image).astype(np.uint8)


def _blurred(image: NDArray[np.floating]) -> NDArray[np.floating]:
    """Blur along the first axis; edge pixels are repeated beyond the edge."""
    result = 2 * image
    result[1:] += image[:-1]
    result[:1] += image[:1]
    result[:-1] += image[1:]
    result[-1:] += image[-1:]
    result /= 4
    return result


def sensor_depth(depth: NDArray[np.float32], rng: np.random.Generator) -> NDArray[np.uint16]:
    """Return depth in millimetres as a structured-light camera measures it, 0 where it measures nothing.

    The standard deviation follows Khoshelham and Elberink (2012): 1.4 mm/m^2 times the squared distance. Pixels at
    jumps of depth are lost often, and some small patches everywhere.

    Args:
        depth: H x W, metres, 0 where nothing is hit.
    """
    height, width = depth.shape
    normal = rng.standard_normal(depth.shape, dtype=np.float32)
    chance = rng.random(depth.shape, dtype=np.float32)
    seen = _measured(depth, normal, chance)
    for _ in range(int(rng.integers(2, 9))):
        row, column = int(rng.integers(0, height)), int(rng.integers(0, width))
        seen[row : row + int(rng.integers(2, 12)), column : column + int(rng.integers(2, 14))] = 0
    return seen


def _measured(
    depth: NDArray[np.float32], normal: NDArray[np.float32], chance: NDArray[np.float32]
) -> NDArray[np.uint16]:
    """Add noise to depth and lose pixels at jumps. Args: H x W each: metres, and normal and uniform random numbers."""
    noisy = depth + (0.001 + 0.0014 * depth**2) * normal
    jump = np.zeros(depth.shape, bool)
    limit = 0.05 * np.maximum(depth, 0.5)
    across, down = np.abs(np.diff(depth, axis=1)), np.abs(np.diff(depth, axis=0))
    jump[:, 1:] |= across > limit[:, 1:]
    jump[:, :-1] |= across > limit[:, :-1]
    jump[1:] |= down > limit[1:]
    jump[:-1] |= down > limit[:-1]
    lost = (jump & (chance < 0.6)) | (depth < 0.35) | (depth > 8)
    return np.where(lost, 0, np.clip(np.round(noisy * 1000), 0, 65535)).astype(np.uint16)
