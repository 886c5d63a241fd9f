"""Compiled loops draw what rays that go one at a time and NumPy draw, to the last bit."""

import numpy as np
import pytest

from xmask3d.native import rays
from xmask3d.rooms import embree, render
from xmask3d.rooms.mesh import Mesh, box, merge
from xmask3d.rooms.render import Light, Renderer, look_at

compiled = pytest.mark.skipif(bool(render._failure()), reason="no compiled loops or no Embree 4 here")
LIGHT = Light(
    ambient=0.35, sun=(0.6, -0.48, 0.64), sun_strength=0.4, lamp=(0.3, -0.2, 2.2), lamp_strength=0.45,
    tint=(1.05, 1.0, 0.94), shadows=True,
)  # fmt: skip


def clutter(seed: int, count: int = 400) -> list[Mesh]:
    """A room full of textured triangles, some of them twice and some boxes that share faces."""
    rng = np.random.default_rng(seed)
    corners = rng.uniform(-1.5, 1.5, (count, 1, 3)) + rng.normal(0, 0.15, (count, 3, 3))
    images = [rng.integers(0, 256, size, dtype=np.uint8) for size in ((5, 7, 3), (1, 1, 3), (16, 8, 3))]
    loose = Mesh(
        corners.astype(np.float32).reshape(-1, 3),
        np.arange(3 * count, dtype=np.int32).reshape(count, 3),
        rng.uniform(-2, 2, (count, 3, 2)).astype(np.float32),
        rng.integers(0, len(images), count).astype(np.int32),
        images,
    )
    twice = Mesh(loose.vertices, loose.faces[::2, ::-1].copy(), loose.uv[::2], loose.texture[::2], images)
    tile = rng.integers(0, 256, (4, 4, 3), dtype=np.uint8)
    beside = [box((x, 0.8, -0.6), (x + 0.5, 1.3, 0.4 + x), tile, 0.3) for x in (-1.0, -0.5, 0.0)]
    return [box((-2, -2, -1), (2, 2, 2.5), tile, 0.7), loose, twice, merge(beside)]


@compiled
@pytest.mark.parametrize("height, width", [(48, 64), (30, 41), (1, 5)])
@pytest.mark.parametrize("light", [LIGHT, Light(lamp=(0, 0, 2), lamp_strength=0.3), Light()])
def test_pictures_are_equal(height: int, width: int, light: Light) -> None:
    meshes, labels = clutter(0), [3, 255, 7, 1]
    plain, fast = (Renderer(meshes[1:], labels[1:], light, (0.2, 0.4, 1.0), compiled=c) for c in (False, True))
    intrinsics = np.array([[50.0, 0, width / 2], [0, 50, height / 2], [0, 0, 1]])
    seen = 0.0
    for eye, target in (((-1.9, -1.8, 1.4), (0.2, 0.3, 0.1)), ((0, -3, 0.5), (0, 0, 0)), ((0.1, 0.2, 2), (0, 0.4, 0))):
        one, other = (r.render(look_at(eye, target), intrinsics, height, width) for r in (plain, fast))
        for name in ("color", "depth", "instance", "label"):
            np.testing.assert_array_equal(getattr(one, name), getattr(other, name), name)
            assert getattr(one, name).dtype == getattr(other, name).dtype
        seen = max(seen, float((one.instance >= 0).mean()))
        uncolored = fast.render(look_at(eye, target), intrinsics, height, width, colored=False)
        np.testing.assert_array_equal(uncolored.depth, one.depth)
        assert not uncolored.color.any()
    assert seen > 0.3


@compiled
@pytest.mark.parametrize("count", [1, 15, 16, 4001])
def test_rays_are_equal(count: int) -> None:
    plain, fast = (Renderer(clutter(1), light=LIGHT, compiled=c) for c in (False, True))
    rng = np.random.default_rng(count)
    origins, directions = rng.uniform(-1.8, 1.8, (count, 3)), rng.normal(0, 1, (count, 3))
    for colored in (True, False):
        one, other = (renderer.cast(origins, directions, colored) for renderer in (plain, fast))
        for name in ("face", "distance", "color"):
            np.testing.assert_array_equal(getattr(one, name), getattr(other, name), name)


@compiled
def test_distances_are_those_of_geometry() -> None:
    hits = Renderer([box((-1, 2, -1), (1, 3, 1), (0.5, 0.25, 1.0))], light=Light(ambient=1.0, sun_strength=0.0)).cast(
        np.zeros((3, 3)), np.array([[0.2, 1, 0.1], [0.2, 4, 0.1], [0, -1, 0]])
    )
    np.testing.assert_allclose(hits.distance, [2, 0.5, 0], rtol=1e-6)
    assert (hits.face >= 0).tolist() == [True, True, False]
    np.testing.assert_array_equal(hits.color[:2], np.float32([[128, 64, 255]] * 2) / np.float32(255))


@compiled
def test_normals_are_those_of_the_mesh() -> None:
    mesh = merge(clutter(2))
    mesh.faces[5] = mesh.faces[5, 0]
    np.testing.assert_array_equal(rays.normals(mesh.vertices, mesh.faces), mesh.normals())
    with pytest.raises(ValueError, match="beyond the 3 vertices"):
        rays.normals(mesh.vertices[:3], mesh.faces)


@compiled
def test_arrays_that_do_not_fit_are_refused() -> None:
    renderer = Renderer(clutter(3, 10))
    with pytest.raises(ValueError, match="N x 3 each"):
        renderer.cast(np.zeros((2, 3)), np.zeros((3, 3)))
    kept = renderer._surfaces._kept
    arrays = dict(zip(("normals", "daylight", "uv", "texture", "instance", "label"), kept, strict=False))
    places = dict(zip(("texels", "texture_start", "texture_width", "texture_height"), kept[6:], strict=True))
    for name, value, message in (
        ("label", arrays["label"][1:], "do not all belong"),
        ("texture", arrays["texture"] + 99, "a texture beyond"),
        ("texels", places["texels"][:-1], "beyond the"),
    ):
        with pytest.raises(ValueError, match=message):
            rays.Surfaces(renderer._surfaces._scene, (0, 0, 0), **{**arrays, **places, name: value})


def test_without_embree_rays_go_one_at_a_time(monkeypatch) -> None:
    monkeypatch.setattr(embree, "library", lambda: None)
    render._failure.cache_clear()
    try:
        renderer = Renderer(clutter(4, 20), light=LIGHT)
        assert not hasattr(renderer, "_surfaces")
        assert renderer.cast(np.zeros((1, 3)), np.ones((1, 3))).face[0] >= 0
    finally:
        render._failure.cache_clear()
