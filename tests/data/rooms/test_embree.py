"""Rays in packets end where rays end that go one at a time."""

import numpy as np
import pytest

from xmask3d.data.rooms import embree
from xmask3d.data.rooms.embree import Scene


def triangles(count: int, rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
    corners = rng.random((count, 1, 3)) + rng.normal(0, 0.05, (count, 3, 3))
    return corners.astype(np.float32).reshape(-1, 3), np.arange(3 * count, dtype=np.int32).reshape(count, 3)


@pytest.mark.skipif(embree._library() is None, reason="no Embree 4 library beside embreex")
@pytest.mark.parametrize("count, rays", [(1, 1), (40, 15), (700, 16), (3000, 40001)])
def test_packets_give_what_single_rays_give(count: int, rays: int) -> None:
    rng = np.random.default_rng(count)
    vertices, faces = triangles(count, rng)
    origins = np.repeat(rng.uniform(-2, 2, (1, 3)), rays, 0).astype(np.float32)
    directions = (rng.random((rays, 3)) - origins).astype(np.float32)
    one_by_one, packets = (Scene(vertices, faces, packets=packets) for packets in (False, True))
    face, distance, u, v = packets.first(origins, np.asfortranarray(directions))
    true_face, true_distance, true_u, true_v = one_by_one.first(origins, directions)
    same = face == true_face  # on an edge either of two
    assert same.mean() > 0.999 and face.dtype == np.int32
    hit = same & (face >= 0)
    assert hit.any() or count == 1
    np.testing.assert_allclose(distance[hit], true_distance[hit], rtol=1e-5)
    np.testing.assert_allclose(u[hit], true_u[hit], atol=1e-3)
    np.testing.assert_allclose(v[hit], true_v[hit], atol=1e-3)
    assert (packets.blocked(origins, directions) == one_by_one.blocked(origins, directions)).mean() > 0.999


@pytest.mark.parametrize("packets", [True, False])
def test_a_known_triangle(packets: bool) -> None:
    scene = Scene(
        np.array([[0, 0, 2], [4, 0, 2], [0, 4, 2]], np.float32), np.array([[0, 1, 2]], np.int32), packets=packets
    )
    origins = np.zeros((3, 3), np.float32)
    directions = np.array([[0.5, 0.25, 1], [0.5, 0.25, 2.5], [3, 3, 1]], np.float32)
    face, distance, u, v = scene.first(origins, directions)
    assert face.tolist() == [0, 0, -1]
    np.testing.assert_allclose(distance[:2], [2, 0.8])
    np.testing.assert_allclose([u[:2], v[:2]], [[0.25, 0.1], [0.125, 0.05]], rtol=1e-5)
    assert scene.blocked(origins, directions).tolist() == [False, True, False]  # the first ends before it


def test_without_the_library_rays_go_one_at_a_time(monkeypatch) -> None:
    monkeypatch.setattr(embree, "_library", lambda: None)
    vertices, faces = triangles(50, np.random.default_rng(0))
    scene = Scene(vertices, faces)
    face, *_ = scene.first(np.full((1, 3), 0.5, np.float32), np.ones((1, 3), np.float32))
    assert not hasattr(scene, "_packets") and face.shape == (1,)
