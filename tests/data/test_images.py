import numpy as np
import torch
import torch.nn.functional as F

from xmask3d.data.images import resize_bilinear, resize_nearest, resize_to_unit


def test_bilinear_is_near_the_exact_one():
    image = np.random.default_rng(0).integers(0, 256, (3, 24, 32), dtype=np.uint8)
    for size in [(51, 64), (24, 40), (12, 20)]:
        exact = F.interpolate(torch.from_numpy(image).double()[None], size, mode="bilinear", align_corners=False)[0]
        assert np.abs(resize_bilinear(image, size) - exact.numpy()).max() <= 1.0


def test_bilinear_keeps_constants_and_the_same_size():
    image = np.full((2, 10, 14), 173, np.uint8)
    assert np.abs(resize_bilinear(image, (33, 29)).astype(int) - 173).max() <= 1
    assert resize_bilinear(image, (10, 14)) is image


def test_nearest_is_torch_nearest():
    values = np.random.default_rng(0).integers(0, 90, (24, 32))
    for size in [(51, 64), (128, 128), (12, 20)]:
        expected = F.interpolate(torch.from_numpy(values).double()[None, None], size, mode="nearest")[0, 0]
        np.testing.assert_array_equal(resize_nearest(values, size), expected.numpy())


def test_pictures_for_networks_are_resized_and_divided_by_255() -> None:
    planes = np.random.default_rng(0).integers(0, 256, (3, 20, 30), dtype=np.uint8)
    for size in ((33, 17), (20, 30)):
        unit = resize_to_unit(planes, size)
        assert unit.dtype == np.float32
        np.testing.assert_array_equal(unit, resize_bilinear(planes, size) / np.float32(255))
