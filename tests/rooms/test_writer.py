"""Files of rooms are what others read."""

import io

import numpy as np
import pytest
from PIL import Image

from xmask3d.rooms.writer import encode_png


@pytest.mark.parametrize("kind", [np.uint8, np.uint16])
@pytest.mark.parametrize("size", [(1, 1), (3, 50), (240, 320)])
def test_png_files_hold_the_pixels(kind: type, size: tuple[int, int]) -> None:
    pixels = np.random.default_rng(0).integers(0, np.iinfo(kind).max + 1, size).astype(kind)
    with Image.open(io.BytesIO(encode_png(pixels))) as image:
        image.verify()
    with Image.open(io.BytesIO(encode_png(pixels[:, ::-1]))) as image:
        assert image.mode == {np.uint8: "L", np.uint16: "I;16"}[kind]
        np.testing.assert_array_equal(np.asarray(image), pixels[:, ::-1])


def test_other_images_are_refused() -> None:
    for image in (np.zeros((2, 2, 3), np.uint8), np.zeros((2, 2), np.float32)):
        with pytest.raises(ValueError, match="uint8 or uint16"):
            encode_png(image)
