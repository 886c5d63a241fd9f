"""Fusion of posed pictures to a cloud."""

import numpy as np

from xmask3d.rooms.point_fusion import Picture, fuse
from xmask3d.rooms.render import Frame


def test_one_cell_takes_the_mean_of_the_instance_with_most_pixels() -> None:
    instance = np.array([[4, 2, 2, -1, 9]], np.int32)
    depth = np.array([[1, 1, 1, 0, 3]], np.float32)
    color = np.zeros((1, 5, 3), np.uint8)
    color[0, :, 0] = [255, 51, 153, 0, 204]
    seen = Frame(color, depth, instance, instance * 10)
    picture = Picture(seen, np.eye(4), 1)
    k = np.array([[1000.0, 0, -0.5], [0, 1000, 0], [0, 0, 1]])
    coords, colors, labels, instances = fuse([picture], k, 1, 0.1)
    assert labels.tolist() == [20, 90] and instances.tolist() == [2, 9]
    np.testing.assert_allclose(coords, [[0.002, 0, 1], [0.0135, 0, 3]])
    np.testing.assert_allclose(colors[:, 0], [0.4, 0.8])


def test_nothing_seen_makes_an_empty_cloud() -> None:
    blank = np.zeros((4, 5), np.int32)
    seen = Frame(np.zeros((4, 5, 3), np.uint8), blank.astype(np.float32), blank - 1, blank + 255)
    coords, colors, labels, instances = fuse([Picture(seen, np.eye(4), 1)], np.eye(3), 1, 0.1)
    assert coords.shape == colors.shape == (0, 3) and labels.shape == instances.shape == (0,)
