"""Random changes to a point cloud's shape and colours, as in the published training code (off by default there)."""

import numpy as np
from scipy import ndimage

from xmask3d.geometry.voxels import RandomSource


def elastic_distortion(
    points: np.ndarray,
    generator: RandomSource,
    scales: tuple[tuple[float, float], ...] = ((0.2, 0.4), (0.8, 1.6)),
    probability: float = 0.95,
) -> np.ndarray:
    """Bend space smoothly.

    Args:
        points: N x 3, metres.
        generator: source of the noise.
        scales: for each pass, spacing of the noise grid and standard deviation of the noise, both in metres.
        probability: probability of any change.

    Returns:
        N x 3 float32.
    """
    if generator.uniform() >= probability or not len(points):
        return np.asarray(points, np.float32)
    bent = np.asarray(points, np.float64)
    for spacing, magnitude in scales:
        low = bent.min(0)
        shape = ((bent.max(0) - low) // spacing).astype(int) + 3
        noise = generator.normal(size=(3, *shape))
        for axis in (1, 2, 3, 1, 2, 3):
            noise = ndimage.uniform_filter1d(noise, 3, axis=axis, mode="constant")
        where = (bent - low).T / spacing + 1
        shift = [ndimage.map_coordinates(part, where, order=1, mode="constant") for part in noise]
        bent = bent + np.stack(shift, 1) * magnitude
    return bent.astype(np.float32)


def random_flips(points: np.ndarray, generator: RandomSource, probability: float = 0.95) -> np.ndarray:
    """Mirror x and y, each with half of `probability`, within the cloud's bounding box. N x 3 to N x 3."""
    flipped = np.array(points)
    if generator.uniform() < probability:
        for axis in (0, 1):
            if generator.uniform() < 0.5 and len(flipped):
                flipped[:, axis] = flipped[:, axis].max() - flipped[:, axis]
    return flipped


def jitter_colors(
    colors: np.ndarray,
    generator: RandomSource,
    contrast: float = 0.2,
    translation: float = 0.1,
    noise: float = 0.05,
    probability: float = 0.95,
) -> np.ndarray:
    """Stretch the contrast, shift all colours together, and add noise to each.

    Args:
        colors: N x 3 in [-1, 1].
        generator: source of randomness.
        contrast: probability of the contrast stretch, whose result is blended in by a random share.
        translation: largest common shift, as a share of the complete range.
        noise: standard deviation of the noise, as a share of the complete range.
        probability: probability of the shift, and of the noise.

    Returns:
        N x 3 float32 in [-1, 1].
    """
    changed = (np.asarray(colors, np.float64) + 1) / 2
    if generator.uniform() < contrast and len(changed):
        low, high = changed.min(0), changed.max(0)
        stretched = (changed - low) / np.maximum(high - low, 1e-6)
        changed += generator.uniform() * (stretched - changed)
    if generator.uniform() < probability:
        changed += generator.uniform(-translation, translation, size=3)
    if generator.uniform() < probability:
        changed += generator.normal(scale=noise, size=changed.shape)
    return (np.clip(changed, 0, 1) * 2 - 1).astype(np.float32)
