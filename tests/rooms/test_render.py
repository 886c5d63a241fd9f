"""Ray casting against what geometry says."""

import numpy as np
import pytest

from xmask3d.rooms.mesh import box, polygons
from xmask3d.rooms.render import Light, Renderer, look_at

INTRINSICS = np.array([[50.0, 0, 31.5], [0, 50.0, 23.5], [0, 0, 1]])
FLAT = Light(ambient=1.0, sun_strength=0.0)


def test_depth_instance_label_and_background() -> None:
    near, far = box((-0.2, 2, -0.2), (0.2, 2.1, 0.2), (1, 0, 0)), box((-1, 4, -1), (1, 4.1, 1), (0, 0, 1))
    renderer = Renderer([near, far], [4, 0], FLAT, background=(0, 1, 0))
    frame = renderer.render(look_at((0, 0, 0), (0, 1, 0)), INTRINSICS, 48, 64)
    assert frame.depth[23, 31] == pytest.approx(2, abs=1e-4)
    assert (frame.instance[23, 31], frame.label[23, 31]) == (0, 4)
    # Depth is along the optical axis, not along the ray.
    assert frame.depth[14, 22] == pytest.approx(4, abs=1e-4)
    assert (frame.instance[14, 22], frame.label[14, 22]) == (1, 0)
    assert (frame.depth[0, 0], frame.instance[0, 0], frame.label[0, 0]) == (0, -1, 255)
    assert [tuple(frame.color[p]) for p in ((23, 31), (14, 22), (0, 0))] == [(255, 0, 0), (0, 0, 255), (0, 255, 0)]


def test_pixels_lie_where_the_pinhole_model_puts_them() -> None:
    pose = look_at((1, 0.5, 1.2), (2, 3, 0.4))
    point = np.array([1.7, 2.6, 0.6])
    frame = Renderer([box(point - 0.03, point + 0.03, (1, 1, 1))], light=FLAT).render(pose, INTRINSICS, 48, 64)
    local = pose[:3, :3].T @ (point - pose[:3, 3])
    column, row = (INTRINSICS @ local)[:2] / local[2]
    assert frame.instance[round(row), round(column)] == 0
    assert (frame.instance == 0).sum() < 25


def test_texture_stands_upright() -> None:
    image = np.array([[[255, 0, 0], [0, 255, 0]], [[0, 0, 255], [255, 255, 255]]], np.uint8)
    wall = polygons([[(-1, 2, -1), (1, 2, -1), (1, 2, 1), (-1, 2, 1)]], image, texel_size=2)
    frame = Renderer([wall], light=FLAT).render(look_at((0, 0, 0), (0, 1, 0)), INTRINSICS, 48, 64)
    corners = [tuple(frame.color[p]) for p in ((10, 18), (10, 45), (37, 18), (37, 45))]
    assert corners == [(255, 0, 0), (0, 255, 0), (0, 0, 255), (255, 255, 255)]


def test_lamp_light_is_blocked_by_things_between() -> None:
    floor, block = box((-2, -2, -0.1), (2, 2, 0), (1, 1, 1)), box((-0.3, -0.3, 0.5), (0.3, 0.3, 0.6), (1, 1, 1))
    brightness = []
    for shadows in (False, True):
        light = Light(ambient=0.2, sun_strength=0.0, lamp=(0, 0, 2), lamp_strength=0.5, shadows=shadows)
        hits = Renderer([floor, block], light=light).rays.cast(
            np.array([[0, 0, 0.3], [1.5, 0, 0.3]]), np.array([[0, 0, -1.0]] * 2)
        )
        brightness.append(hits.color[:, 0])
    assert brightness[0][0] == pytest.approx(0.2 + 0.5 * 8 / (4 + 4), abs=1e-4)
    assert brightness[1][0] == pytest.approx(0.2 + 0.35 * 0.5 * 8 / (4 + 4), abs=1e-4)
    assert brightness[1][1] == pytest.approx(brightness[0][1])


def test_camera_axes_are_right_down_forward() -> None:
    pose = look_at((0, 0, 1), (0, 5, 1))
    np.testing.assert_allclose(pose[:3, :3], np.array([[1, 0, 0], [0, 0, -1], [0, 1, 0]]).T, atol=1e-12)
    assert np.linalg.det(pose[:3, :3]) == pytest.approx(1)


def test_nothing_to_draw_is_refused() -> None:
    with pytest.raises(ValueError, match="no faces"):
        Renderer([])
