"""Pictures of a cheap camera: exposure, white balance, blur, grain, blown highlights and JPEG."""

import io
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from xmask3d.rooms.scanned.film import Film, PlainArray
from xmask3d.rooms.scanned.settings import ScanSettings

TARGET = 0.52
"""Target brightness of the automatic exposure."""


@dataclass(frozen=True)
class Camera:
    """Camera of one recording.

    Attributes:
        balance: red, green and blue gains.
        offset: error of the exposure, stops.
        gamma: exponent of the tone curve.
        blur: standard deviation of the lens blur, pixels.
        grain: standard deviation of the noise, of 255.
        vignette: loss of brightness in the corners.
        quality: JPEG quality.
    """

    balance: tuple[float, float, float]
    offset: float
    gamma: float
    blur: float
    grain: float
    vignette: float
    quality: int


def choose_camera(settings: ScanSettings, rng: np.random.Generator) -> Camera:
    """Draw a camera."""
    red, blue = np.exp(rng.normal(0, settings.white_balance, 2))
    return Camera(
        (float(red), 1.0, float(blue)),
        float(rng.normal(0, settings.exposure)),
        float(rng.uniform(0.65, 1.1)),
        float(rng.uniform(0, settings.blur)),
        float(rng.uniform(*settings.grain)),
        float(rng.uniform(0, settings.vignette)),
        round(rng.uniform(*settings.jpeg)),
    )


def take_picture(film: Film, camera: Camera, settings: ScanSettings, rng: np.random.Generator) -> bytes:
    """Return a JPEG file of the light on the film. Each frame has its own exposure, as in real cameras."""
    light = film.light
    mean = float(np.minimum(light, 1).mean())
    gain = np.clip(TARGET / max(mean, 1e-3), 0.5, 3.5) * 2 ** (camera.offset + rng.normal(0, settings.exposure / 3))
    balance = np.asarray(camera.balance) * np.exp(rng.normal(0, settings.white_balance / 4, 3))
    image = light * (gain * balance).astype(np.float32)
    image = _motion_blurred(_blurred(image, camera.blur), float(rng.exponential(settings.motion)), rng)
    # Light beyond white spills over its surroundings.
    image += np.float32(0.15) * _spread(np.maximum(image - 1, 0))
    image *= _vignette(image.shape[0], image.shape[1], camera.vignette)[..., None]
    np.clip(image, 0, 1, out=image)
    np.power(image, np.float32(camera.gamma), out=image)
    image *= np.float32(255)
    image += rng.standard_normal(image.shape, dtype=np.float32) * np.float32(camera.grain)
    pixels = np.clip(image + np.float32(0.5), 0, 255).astype(np.uint8)
    file = io.BytesIO()
    Image.fromarray(pixels).save(file, "JPEG", quality=camera.quality)
    return file.getvalue()


def decode(jpeg: bytes) -> NDArray[np.uint8]:
    """Return the picture in a JPEG file, H x W x 3."""
    with Image.open(io.BytesIO(jpeg)) as image:
        return np.asarray(image.convert("RGB"))


def _blurred(image: PlainArray, sigma: float) -> PlainArray:
    """Blur with a kernel of three pixels to each side; ray casting always needs some blur."""
    side = np.exp(-0.5 / max(sigma, 0.45) ** 2)
    for axis in (0, 1):
        padded = np.concatenate([image.take([0], axis), image, image.take([-1], axis)], axis)
        low = padded.take(range(0, image.shape[axis]), axis)
        high = padded.take(range(2, image.shape[axis] + 2), axis)
        image = (image + np.float32(side) * (low + high)) / np.float32(1 + 2 * side)
    return image


def _motion_blurred(image: PlainArray, length: float, rng: np.random.Generator) -> PlainArray:
    """Average copies along a line of some pixels."""
    count = int(min(length, 12.0)) + 1
    angle = rng.uniform(0, np.pi)
    if count < 2:
        return image
    height, width = image.shape[:2]
    total = np.zeros_like(image)
    for step in np.arange(count) - (count - 1) / 2:
        dy, dx = round(step * np.sin(angle)), round(step * np.cos(angle))
        rows = np.clip(np.arange(height) + dy, 0, height - 1)
        total += image[rows][:, np.clip(np.arange(width) + dx, 0, width - 1)]
    return total / np.float32(count)


def _spread(light: PlainArray) -> PlainArray:
    """Blur widely: means of blocks of eight pixels, smoothed and brought back to size."""
    height, width = light.shape[0] // 8, light.shape[1] // 8
    small = light[: height * 8, : width * 8].reshape(height, 8, width, 8, 3).mean((1, 3))
    for axis in (0, 1):
        small = (small + np.roll(small, 1, axis) + np.roll(small, -1, axis)) / 3
    rows = np.minimum(np.arange(light.shape[0]) // 8, height - 1)
    return small[rows][:, np.minimum(np.arange(light.shape[1]) // 8, width - 1)].astype(np.float32)


def _vignette(height: int, width: int, loss: float) -> PlainArray:
    y, x = np.linspace(-1, 1, height)[:, None], np.linspace(-1, 1, width)
    return (1 - loss * (x**2 + y**2) / 2).astype(np.float32)
