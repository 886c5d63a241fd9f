"""The loops of training samples give what NumPy gives."""

import numpy as np
import pytest

from xmask3d.data import images
from xmask3d.data.images import resize_bilinear, resize_to_unit
from xmask3d.geometry import camera
from xmask3d.geometry.camera import PUBLISHED_INTRINSICS, visible_points
from xmask3d.native import samples

compiled = pytest.mark.skipif(not samples.available(), reason="no compiled loops here")


@compiled
@pytest.mark.parametrize("size", [(512, 512), (192, 200), (31, 7), (1, 1)])
@pytest.mark.parametrize("by_pixel", [False, True])
def test_resized_pictures_are_equal_to_the_last_bit(size: tuple[int, int], by_pixel: bool) -> None:
    picture = np.random.default_rng(0).integers(0, 256, (48, 64, 3) if by_pixel else (3, 48, 64), dtype=np.uint8)
    planes = picture.transpose(2, 0, 1) if by_pixel else picture
    expected = resize_bilinear(np.ascontiguousarray(planes), size).astype(np.float32) / np.float32(255)
    np.testing.assert_array_equal(resize_to_unit(planes, size), expected)


def test_pictures_are_divided_the_same_way_without_the_loops(monkeypatch) -> None:
    planes = np.random.default_rng(0).integers(0, 256, (3, 20, 30), dtype=np.uint8)
    with_loops = resize_to_unit(planes, (33, 17))
    monkeypatch.setattr(images.samples, "available", lambda: False)
    np.testing.assert_array_equal(resize_to_unit(planes, (33, 17)), with_loops)
    np.testing.assert_array_equal(resize_to_unit(planes, (20, 30)), planes / np.float32(255))


@compiled
def test_taps_outside_of_the_picture_are_refused() -> None:
    planes, table = np.zeros((1, 4, 4), np.uint8), np.zeros(256, np.float32)
    with pytest.raises(ValueError, match="inside of"):
        samples.resize_bilinear(planes, np.full((2, 4), 4), np.zeros((2, 4)), table)


@compiled
def test_the_frustum_keeps_the_points_of_the_plain_way(monkeypatch) -> None:
    points = np.random.default_rng(0).uniform(-4, 4, (20_000, 3)).astype(np.float32)
    planes = np.random.default_rng(1).normal(size=(6, 4)).astype(np.float32)
    planes[:, :3] /= np.linalg.norm(planes[:, :3], axis=1, keepdims=True)
    planes[:, 3] += 3
    distance = points.astype(np.float64) @ planes[:, :3].T.astype(np.float64) + planes[:, 3]
    found = samples.in_frustum(points, planes, 0.0)
    assert 0 < len(found) < len(points)
    assert (distance[found] >= -1e-5).all()
    assert set(np.flatnonzero((distance >= 1e-5).all(1))) <= set(found)
    assert (np.diff(found) > 0).all()

    pose = np.eye(4)
    depth = np.full((240, 320), 3, np.float32)
    with_loops = visible_points(points, pose, PUBLISHED_INTRINSICS, (240, 320), depth)
    monkeypatch.setattr(samples, "available", lambda: False)
    for ours, plain in zip(
        with_loops, camera.visible_points(points, pose, PUBLISHED_INTRINSICS, (240, 320), depth), strict=True
    ):
        np.testing.assert_array_equal(ours, plain)
    assert len(with_loops[0])


@compiled
def test_no_points_are_in_no_frustum() -> None:
    assert not len(samples.in_frustum(np.zeros((0, 3), np.float32), np.ones((6, 4), np.float32), 0.0))
