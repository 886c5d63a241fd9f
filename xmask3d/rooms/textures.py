"""Small procedural textures: wood, cloth, stone, tiles, planks, wallpaper, paintings. All are h x w x 3 uint8."""

from colorsys import hsv_to_rgb

import numpy as np
from numpy.typing import NDArray

from xmask3d.rooms.mesh import ByteArray, Color, to_bytes

SIDE = 64


def hsv(hue: float, saturation: float, value: float) -> tuple[float, float, float]:
    """Convert a hue (which wraps around), a saturation and a value to red, green, blue in [0, 1]."""
    return hsv_to_rgb(hue % 1, min(max(saturation, 0), 1), min(max(value, 0), 1))


def wood(rng: np.random.Generator, color: Color) -> ByteArray:
    """Draw wood with its grain along the texture's width."""
    rows = _smooth_noise(rng, (SIDE, SIDE), (1, 12))
    fine = _smooth_noise(rng, (SIDE, SIDE), (0.6, 4))
    return _tint(color, 1 + 0.09 * rows + 0.04 * fine)


def cloth(rng: np.random.Generator, color: Color) -> ByteArray:
    """Draw a weave with slight stains; sometimes striped or checked in a second shade."""
    shade = 1 + 0.05 * rng.standard_normal((SIDE, SIDE)) + 0.05 * _smooth_noise(rng, (SIDE, SIDE), (8, 8))
    pattern, period = rng.integers(0, 5), int(rng.choice([8, 16, 32]))
    stripes = (np.arange(SIDE) // (period // 2)) % 2
    if pattern == 0:
        shade *= 1 - 0.3 * stripes[None, :]
    elif pattern == 1:
        shade *= 1 - 0.18 * stripes[None, :] - 0.18 * stripes[:, None]
    return _tint(color, shade)


def stone(rng: np.random.Generator, color: Color) -> ByteArray:
    """Draw speckled granite or veined marble."""
    clouds = _smooth_noise(rng, (SIDE, SIDE), (5, 5))
    veins = np.exp(-30 * np.abs(_smooth_noise(rng, (SIDE, SIDE), (9, 9))))
    return _tint(color, 1 + 0.08 * clouds + 0.07 * rng.standard_normal((SIDE, SIDE)) - 0.2 * veins)


def tiles(rng: np.random.Generator, color: Color, count: int = 2, chequered: bool = False) -> ByteArray:
    """Draw square tiles with darker or lighter joints, on request light and dark in turn."""
    step = SIDE // count
    cell = rng.uniform(-0.06, 0.06, (count, count))
    if chequered:
        cell += 0.45 * ((np.arange(count)[:, None] + np.arange(count)) % 2) - 0.4
    shade = 1 + np.kron(cell, np.ones((step, step))) + 0.02 * rng.standard_normal((SIDE, SIDE))
    joint = (np.arange(SIDE) % step) < 2
    shade[joint[:, None] | joint[None, :]] *= rng.choice([0.65, 0.8, 1.15])
    return _tint(color, shade)


def planks(rng: np.random.Generator, color: Color) -> ByteArray:
    """Draw boards along the texture's width with dark gaps and staggered ends."""
    count = 4
    step = SIDE // count
    shade = 1 + 0.1 * _smooth_noise(rng, (SIDE, SIDE), (1, 14))
    for board in range(count):
        rows = slice(board * step, (board + 1) * step)
        shade[rows] += rng.uniform(-0.12, 0.12)
        shade[rows, rng.integers(0, SIDE)] *= 0.7
        shade[board * step] *= 0.72
    return _tint(color, shade)


def plaster(rng: np.random.Generator, color: Color) -> ByteArray:
    """Draw a painted wall, almost even."""
    return _tint(
        color, 1 + 0.015 * _smooth_noise(rng, (SIDE, SIDE), (6, 6)) + 0.012 * rng.standard_normal((SIDE, SIDE))
    )


def wallpaper(rng: np.random.Generator, color: Color) -> ByteArray:
    """Draw broad faint stripes or dots."""
    axis = np.arange(SIDE)
    if rng.random() < 0.6:
        shade = np.broadcast_to(1 - 0.1 * ((axis // int(rng.choice([8, 16]))) % 2), (SIDE, SIDE)).copy()
    else:
        wave = np.cos(axis * 2 * np.pi / 16)
        shade = 1 - 0.12 * (wave[:, None] * wave[None, :] > 0.4)
    return _tint(color, shade + 0.01 * rng.standard_normal((SIDE, SIDE)))


def carpet(rng: np.random.Generator, color: Color) -> ByteArray:
    """Draw an even pile with noise."""
    return _tint(
        color, 1 + 0.09 * rng.standard_normal((SIDE, SIDE)) + 0.04 * _smooth_noise(rng, (SIDE, SIDE), (10, 10))
    )


def painting(rng: np.random.Generator) -> ByteArray:
    """Draw a landscape, blocks of colour, or soft blobs."""
    rows, columns = np.mgrid[0:SIDE, 0:SIDE] / SIDE
    image = np.empty((SIDE, SIDE, 3))
    image[:] = hsv(rng.random(), rng.uniform(0.05, 0.6), rng.uniform(0.5, 1))
    style = rng.integers(0, 3)
    if style == 0:
        image[:] = hsv(rng.uniform(0.5, 0.65), 0.4, 0.95)
        for layer in range(4):
            edge = 0.35 + 0.15 * layer + 0.1 * np.sin(columns * rng.uniform(3, 12) + rng.uniform(0, 6))
            image[rows > edge] = hsv(rng.uniform(0.1, 0.45), rng.uniform(0.3, 0.8), rng.uniform(0.25, 0.8))
    elif style == 1:
        for _ in range(9):
            top, left = rng.integers(0, SIDE - 8, 2)
            height, width = rng.integers(8, 40, 2)
            image[top : top + height, left : left + width] = hsv(rng.random(), rng.uniform(0.2, 1), rng.uniform(0.2, 1))
    else:
        for _ in range(7):
            center, radius = rng.random(2), rng.uniform(0.08, 0.3)
            inside = (rows - center[0]) ** 2 + (columns - center[1]) ** 2 < radius**2
            image[inside] = hsv(rng.random(), rng.uniform(0.3, 1), rng.uniform(0.3, 1))
    return to_bytes(image * (1 + 0.04 * rng.standard_normal((SIDE, SIDE, 1))))


def outdoors(rng: np.random.Generator) -> ByteArray:
    """Draw the view from a window by day: bright sky above blurred green."""
    rows = np.linspace(0, 1, SIDE)[:, None]
    horizon = rng.uniform(0.55, 0.85) + 0.05 * _smooth_noise(rng, (1, SIDE), (1, 6))
    sky = np.asarray(hsv(rng.uniform(0.53, 0.6), rng.uniform(0.08, 0.3), 1.0))
    ground = np.asarray(hsv(rng.uniform(0.2, 0.4), rng.uniform(0.2, 0.5), rng.uniform(0.5, 0.75)))
    mix = 1 / (1 + np.exp(-25 * (rows - horizon)))[..., None]
    return to_bytes(sky * (1 - mix) + ground * mix * (1 + 0.15 * _smooth_noise(rng, (SIDE, SIDE), (3, 3)))[..., None])


def recolored(image: ByteArray, tint: Color, strength: float) -> ByteArray:
    """Blend a texture towards a colour, keeping its light and dark."""
    pixels = image.astype(np.float64) / 255
    gray = pixels.mean(-1, keepdims=True)
    return to_bytes(pixels * (1 - strength) + strength * gray * np.asarray(tint) / max(float(np.mean(tint)), 1e-3))


def _smooth_noise(rng: np.random.Generator, shape: tuple[int, int], scale: tuple[float, float]) -> NDArray[np.float64]:
    """Draw periodic Gaussian noise of unit variance, smooth over `scale` texels along each axis."""
    frequencies = [
        np.fft.fftfreq(size)[:, None] if axis == 0 else np.fft.fftfreq(size)[None, :] for axis, size in enumerate(shape)
    ]
    damping = np.exp(-2 * (np.pi**2) * ((frequencies[0] * scale[0]) ** 2 + (frequencies[1] * scale[1]) ** 2))
    noise = np.fft.ifft2(np.fft.fft2(rng.standard_normal(shape)) * damping).real
    return noise / max(float(noise.std()), 1e-9)


def _tint(color: Color, shade: NDArray[np.float64]) -> ByteArray:
    return to_bytes(np.asarray(color, np.float64) * shade[..., None])
