"""Pictures that rooms show: the outside, posters, screens, labels of packages."""

import numpy as np
from numpy.typing import NDArray

from xmask3d.rooms.mesh import ByteArray, to_bytes
from xmask3d.rooms.textures import hsv

HEIGHT, WIDTH = 128, 256


def outside(rng: np.random.Generator) -> ByteArray:
    """Draw a panorama H x W x 3: sky, then houses with windows or trees, then ground; its sides meet."""
    rows, columns = np.mgrid[0:HEIGHT, 0:WIDTH]
    clear = rng.random() < 0.5
    top, low = np.asarray(hsv(0.58, 0.45 if clear else 0.05, 0.9)), np.asarray(hsv(0.56, 0.1, 1.0))
    share = (rows / HEIGHT)[..., None]
    image = top * (1 - share) + low * share
    image = image + 0.04 * _waves(rng, columns, 6)[..., None] * (1 - share)
    for _ in range(int(rng.integers(2, 7))):
        left, across = int(rng.integers(0, WIDTH)), int(rng.integers(20, 70))
        roof = int(HEIGHT * rng.uniform(0.12, 0.55))
        inside = ((columns - left) % WIDTH < across) & (rows > roof)
        wall = np.asarray(hsv(rng.choice([0.02, 0.08, 0.1, 0.6]), rng.uniform(0.05, 0.55), rng.uniform(0.45, 0.95)))
        courses = 1 - 0.1 * (rows % 4 == 0)
        image = np.where(inside[..., None], wall * courses[..., None], image)
        panes = inside & ((columns - left) % WIDTH % 14 > 6) & ((rows - roof) % 18 > 9)
        image = np.where(panes[..., None], np.asarray(hsv(0.6, 0.2, rng.uniform(0.2, 0.5))), image)
    for _ in range(int(rng.integers(2, 9))):
        middle, radius = (rng.integers(0, WIDTH), HEIGHT * rng.uniform(0.35, 0.75)), rng.uniform(8, 30)
        across = (columns - middle[0] + WIDTH // 2) % WIDTH - WIDTH // 2
        ragged = radius * (1 + 0.35 * _grain(rng)[..., 0])
        crown = across**2 + (rows - middle[1]) ** 2 < ragged**2
        leaf = np.asarray(hsv(rng.uniform(0.2, 0.36), rng.uniform(0.3, 0.7), rng.uniform(0.2, 0.55)))
        image = np.where(crown[..., None], leaf * (1 + 0.35 * _grain(rng)), image)
    ground = np.asarray(hsv(rng.choice([0.08, 0.28, 0.6]), rng.uniform(0.03, 0.5), rng.uniform(0.35, 0.7)))
    horizon = HEIGHT * rng.uniform(0.6, 0.85)
    image = np.where((rows > horizon)[..., None], ground * (1 + 0.1 * _grain(rng)), image)
    return to_bytes(image)


def poster(rng: np.random.Generator) -> ByteArray:
    """Draw a sheet of paper: a picture with a margin, blocks and lines of text, or a chart."""
    side = 64
    image = np.empty((side, side, 3))
    image[:] = hsv(rng.random(), rng.uniform(0, 0.25), rng.uniform(0.75, 1))
    style = int(rng.integers(0, 3))
    if style < 2:
        margin = int(rng.integers(2, 10))
        height = int(rng.integers(24, 60 - margin))
        rows, columns = np.mgrid[0:height, 0 : side - 2 * margin] / side
        low, high = np.asarray(hsv(rng.random(), 0.6, 0.9)), np.asarray(hsv(rng.random(), 0.6, 0.4))
        wave = 0.5 + 0.5 * np.sin(rng.uniform(3, 14) * rows + rng.uniform(3, 14) * columns + rng.uniform(0, 6))
        part = low * wave[..., None] + high * (1 - wave[..., None])
        for _ in range(int(rng.integers(1, 5))):
            y, x, radius = rng.random(), rng.random(), rng.uniform(0.05, 0.25)
            part[(rows - y) ** 2 + (columns - x) ** 2 < radius**2] = hsv(rng.random(), 0.8, rng.uniform(0.2, 1))
        image[margin : margin + height, margin : side - margin] = part
    first = int(rng.integers(4, 30)) if style == 2 else 52
    for row in range(first, side - 4, int(rng.integers(3, 7))):
        image[row, 5 : int(rng.integers(20, side - 4))] = rng.uniform(0.05, 0.45)
    return to_bytes(image)


def screen(rng: np.random.Generator) -> ByteArray:
    """Draw a screen: switched off, or windows with lines of text."""
    image = np.full((48, 64, 3), rng.uniform(0.01, 0.06))
    if rng.random() < 0.4:
        image[:] = hsv(rng.uniform(0.5, 0.7), rng.uniform(0.1, 0.7), rng.uniform(0.3, 0.8))
        for _ in range(int(rng.integers(1, 4))):
            top, left = rng.integers(0, 20), rng.integers(0, 30)
            image[top : top + 26, left : left + 32] = rng.uniform(0.75, 1)
            image[top + 4 : top + 24 : 3, left + 3 : left + int(rng.integers(10, 30))] = 0.3
    return to_bytes(image)


def package(rng: np.random.Generator) -> ByteArray:
    """Draw the side of a box: cardboard or a printed package."""
    image = np.empty((32, 32, 3))
    if rng.random() < 0.4:
        image[:] = hsv(0.08, rng.uniform(0.3, 0.5), rng.uniform(0.5, 0.75))
        image[:, 14:18] *= 0.85
    else:
        image[:] = hsv(rng.random(), rng.uniform(0.2, 0.9), rng.uniform(0.3, 1))
        top = int(rng.integers(2, 16))
        image[top : top + int(rng.integers(4, 14)), 4:28] = hsv(rng.random(), rng.uniform(0, 0.9), rng.uniform(0.2, 1))
    return to_bytes(image * (1 + 0.03 * rng.standard_normal((32, 32, 1))))


def _grain(rng: np.random.Generator) -> NDArray[np.float64]:
    """Draw noise of a few pixels' size, H x W x 1."""
    noise = rng.standard_normal((HEIGHT, WIDTH))
    for axis in (0, 1):
        noise = (noise + np.roll(noise, 1, axis) + np.roll(noise, 2, axis)) / 2
    return noise[..., None] / 2


def _waves(rng: np.random.Generator, columns: NDArray, count: int) -> NDArray[np.float64]:
    """Return a sum of waves along the columns that repeat after the picture's width."""
    waves = [np.sin(2 * np.pi * int(rng.integers(1, 9)) * columns / WIDTH + rng.uniform(0, 6.28)) for _ in range(count)]
    return np.sum(waves, 0) / np.sqrt(count)
