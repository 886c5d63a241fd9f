"""The loops of a scanner's pictures and cloud give what NumPy gives."""

import numpy as np
import pytest

from xmask3d.native import rooms
from xmask3d.rooms import noise
from xmask3d.rooms import point_fusion as fusion
from xmask3d.rooms.point_fusion import Picture, fuse, fuse_plainly
from xmask3d.rooms.render import Frame, look_at

compiled = pytest.mark.skipif(not rooms.available(), reason="no compiled loops here")
INTRINSICS = np.array([[40.0, 0, 19.5], [0, 41.0, 14.5], [0, 0, 1]])


def frame(seed: int, size: tuple[int, int] = (30, 41)) -> Frame:
    rng = np.random.default_rng(seed)
    instance = rng.integers(-1, 6, size).astype(np.int32)
    depth = np.where(instance < 0, 0, rng.uniform(0.2, 9, size)).astype(np.float32)
    depth[5:12] = 2.5  # flat, so that cells hold many points
    label = np.where(instance < 0, 255, instance % 4).astype(np.int32)
    return Frame(rng.integers(0, 256, (*size, 3), dtype=np.uint8), depth, instance, label)


@compiled
@pytest.mark.parametrize("size", [(30, 41), (2, 2), (1, 7), (1, 1)])
def test_sensor_pictures_are_equal(size: tuple[int, int], monkeypatch) -> None:
    seen, results = frame(0, (30, 41)), []
    color, depth = seen.color[: size[0], : size[1]], seen.depth[: size[0], : size[1]]
    for available in (True, False):
        monkeypatch.setattr(noise.loops, "available", lambda available=available: available)
        rng = np.random.default_rng(3)
        results.append((noise.sensor_color(color, 1.3, rng), noise.sensor_depth(depth, rng), rng.random()))
    for one, other in zip(*results, strict=True):
        np.testing.assert_array_equal(one, other)
    assert results[0][0].dtype == np.uint8 and results[0][1].dtype == np.uint16


@compiled
@pytest.mark.parametrize("steps", [(1,), (2, 1), (2, 3, 1, 1)])
def test_clouds_are_equal(steps: tuple[int, ...]) -> None:
    poses = [look_at((0.3 * i, -1, 1.5), (1, 2, 0.5 * i)) for i in range(len(steps))]
    pictures = [Picture(frame(i), pose, step) for i, (pose, step) in enumerate(zip(poses, steps, strict=True))]
    for spacing in (0.035, 0.5):
        compiled_parts = fuse(pictures, INTRINSICS, 2, spacing)
        for one, other in zip(compiled_parts, fuse_plainly(pictures, INTRINSICS, 2, spacing), strict=True):
            # To the last bit where NumPy's matrix products are fused, as on x86.
            np.testing.assert_allclose(one, other, rtol=1e-12, atol=1e-12)
    assert 10 < len(compiled_parts[0]) < sum((picture.frame.instance >= 0).sum() for picture in pictures)


def test_one_cell_takes_the_mean_of_the_instance_with_most_pixels(monkeypatch) -> None:
    instance = np.array([[4, 2, 2, -1, 9]], np.int32)
    depth = np.array([[1, 1, 1, 0, 3]], np.float32)
    color = np.zeros((1, 5, 3), np.uint8)
    color[0, :, 0] = [255, 51, 153, 0, 204]
    seen = Frame(color, depth, instance, instance * 10)
    picture = Picture(seen, np.eye(4), 1)
    k = np.array([[1000.0, 0, -0.5], [0, 1000, 0], [0, 0, 1]])
    for available in (True, False) if rooms.available() else (False,):
        monkeypatch.setattr(fusion.loops, "available", lambda available=available: available)
        coords, colors, labels = fuse([picture], k, 1, 0.1)
        assert labels.tolist() == [20, 90]
        np.testing.assert_allclose(coords, [[0.002, 0, 1], [0.0135, 0, 3]])
        np.testing.assert_allclose(colors[:, 0], [0.4, 0.8])


def test_nothing_seen_makes_an_empty_cloud() -> None:
    blank = np.zeros((4, 5), np.int32)
    seen = Frame(np.zeros((4, 5, 3), np.uint8), blank.astype(np.float32), blank - 1, blank + 255)
    for way in (fuse, fuse_plainly):
        coords, colors, labels = way([Picture(seen, np.eye(4), 1)], INTRINSICS, 1, 0.1)
        assert coords.shape == colors.shape == (0, 3) and labels.shape == (0,)


@compiled
def test_arrays_that_do_not_fit_are_refused() -> None:
    flat = np.zeros((4, 5), np.float32)
    with pytest.raises(ValueError, match="H x W x 3"):
        rooms.sensor_color(np.zeros((4, 5), np.uint8), np.ones(3), flat, 1.0)
    with pytest.raises(ValueError, match="H x W each"):
        rooms.sensor_depth(flat, flat[1:], flat)
    parts = (np.zeros((4, 5, 3), np.uint8), flat, flat.astype(np.int32)[1:], flat.astype(np.int32), np.eye(4), 1)
    with pytest.raises(ValueError, match="instance"):
        rooms.fuse([parts], (1.0, 0.0, 1.0, 0.0), 1, 0.1)
