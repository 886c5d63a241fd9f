"""Meshes: sizes, turns, textures, files."""

import numpy as np
import pytest

from xmask3d.rooms.mesh import Mesh, box, lathe, merge, polygons, solid_texture


def test_box_has_its_size_and_outward_normals() -> None:
    mesh = box((0, 0, 0), (1, 2, 3), (1, 0, 0))
    np.testing.assert_allclose(mesh.extent, [1, 2, 3])
    assert mesh.areas().sum() == pytest.approx(2 * (1 * 2 + 2 * 3 + 1 * 3))
    center = mesh.vertices[mesh.faces].mean(1) - [0.5, 1, 1.5]
    assert ((center * mesh.normals()).sum(-1) > 0).all()


def test_quarter_turn_brings_the_front_from_minus_y_to_plus_x() -> None:
    front = box((-0.1, -1, 0), (0.1, -0.9, 1), (0, 0, 0)).turned(np.pi / 2)
    np.testing.assert_allclose(front.bounds, [[0.9, -0.1, 0], [1, 0.1, 1]], atol=1e-6)


def test_standing_centres_on_the_floor() -> None:
    mesh = box((3, 4, 5), (5, 5, 6), (0, 0, 0)).standing()
    np.testing.assert_allclose(mesh.bounds, [[-1, -0.5, 0], [1, 0.5, 1]], atol=1e-6)


def test_merge_keeps_textures_apart() -> None:
    red, blue = box((0, 0, 0), (1, 1, 1), (1, 0, 0)), box((2, 0, 0), (3, 1, 1), (0, 0, 1))
    both = merge(red, blue)
    assert len(both.faces) == 24
    assert [tuple(both.textures[i][0, 0]) for i in (both.texture[0], both.texture[-1])] == [(255, 0, 0), (0, 0, 255)]
    assert both.faces[12:].min() == len(red.vertices)


def test_merge_of_nothing_is_empty() -> None:
    assert len(merge().faces) == 0


def test_polygon_texture_is_in_metres() -> None:
    mesh = polygons([[(0, 0, 0), (3, 0, 0), (3, 0, 2), (0, 0, 2)]], solid_texture((1, 1, 1)), texel_size=0.5)
    np.testing.assert_allclose(mesh.uv.reshape(-1, 2).max(0), [6, 4], atol=1e-6)


def test_lathe_makes_a_cylinder() -> None:
    mesh = lathe([(1, 0), (1, 2)], (1, 1, 1), sides=64)
    assert mesh.areas().sum() == pytest.approx(2 * np.pi * 2, rel=1e-2)


def test_saved_mesh_is_the_same(tmp_path) -> None:
    mesh = merge(box((0, 0, 0), (1, 1, 1), (1, 0, 0)), lathe([(1, 0), (1, 2)], (0, 1, 0)))
    mesh.save(tmp_path / "cache" / "mesh.npz")
    loaded = Mesh.load(tmp_path / "cache" / "mesh.npz")
    for name in ("vertices", "faces", "uv", "texture"):
        np.testing.assert_array_equal(getattr(mesh, name), getattr(loaded, name))
    assert all((a == b).all() for a, b in zip(mesh.textures, loaded.textures, strict=True))
    assert [path.name for path in (tmp_path / "cache").iterdir()] == ["mesh.npz"]
