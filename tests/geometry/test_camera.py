from pathlib import Path

import numpy as np
import pytest
import torch
import torch.nn.functional as F

from tests.helpers.projection import project_points
from xmask3d.geometry.camera import PUBLISHED_INTRINSICS, Intrinsics, scale_matrix, visible_points

GOLDEN = Path(__file__).parents[1] / "golden" / "b_mapping"


@pytest.fixture(scope="module")
def golden():
    return np.load(GOLDEN / "inputs.npz"), np.load(GOLDEN / "outputs.npz")


def test_published_intrinsics(golden):
    k = golden[0]["intrinsics"]
    camera = PUBLISHED_INTRINSICS
    assert [camera.fx, camera.fy, camera.cx, camera.cy] == [k[0, 0], k[1, 1], k[0, 2], k[1, 2]]


@pytest.mark.parametrize("case", ["mapping", "mapping_no_depth", "mapping_identity_pose"])
@pytest.mark.parametrize("depth_type", [np.float32, np.float64])
def test_golden(golden, case, depth_type):
    inputs, outputs = golden
    identity = case == "mapping_identity_pose"
    points = inputs["points_camera"] if identity else inputs["points_world"]
    pose = np.eye(4) if identity else inputs["pose_camera_to_world"]
    depth = None if case == "mapping_no_depth" else (inputs["depth_mm"] / 1000).astype(depth_type)
    pixels, visible = project_points(points, pose, PUBLISHED_INTRINSICS, (240, 320), depth)
    expected = outputs[case]
    assert expected[:, 2].sum() > 500
    np.testing.assert_array_equal(np.c_[pixels, visible], expected)


def test_known_pixels():
    camera = Intrinsics(100.0, 100.0, 50.0, 40.0)
    points = np.array([[0, 0, 2.0], [0.1, -0.2, 2.0], [0, 0, -2.0], [0.005, 0, 1.0], [0.015, 0, 1.0], [5, 0, 1.0]])
    pixels, visible = project_points(points, np.eye(4), camera, (80, 100), border=0)
    assert visible.tolist() == [True, True, False, True, True, False]
    # 50.5 and 51.5 both round to the even neighbour.
    assert pixels[visible].tolist() == [[40, 50], [30, 55], [40, 50], [40, 52]]


def test_border_is_inclusive_below_and_exclusive_above():
    camera = Intrinsics(1.0, 1.0, 0.0, 0.0)
    columns = np.array([9, 10, 89, 90.0])
    points = np.stack([columns, np.full(4, 20.0), np.ones(4)], 1)
    assert project_points(points, np.eye(4), camera, (60, 100))[1].tolist() == [False, True, True, False]


def test_occlusion_is_relative_to_the_depth():
    camera = Intrinsics(1.0, 1.0, 20.0, 20.0)
    z = np.array([1.4, 1.5, 2.0, 2.5, 2.6])
    points = np.stack([np.zeros(5), np.zeros(5), z], 1)
    depth = np.full((40, 40), 2.0)
    assert project_points(points, np.eye(4), camera, (40, 40), depth)[1].tolist() == [False, True, True, True, False]
    depth[:] = 0
    assert not project_points(points, np.eye(4), camera, (40, 40), depth)[1].any()


def test_unknown_depths_do_not_hide_known_ones():
    camera = Intrinsics(1.0, 1.0, 20.0, 20.0)
    depth = np.full((40, 40), np.nan)
    depth[20, 20] = 2.0
    points = np.array([[0, 0, 2.0], [4.0, 0, 2.0]])
    assert project_points(points, np.eye(4), camera, (40, 40), depth)[1].tolist() == [True, False]


@pytest.mark.parametrize("broken", [np.nan, np.inf, -np.inf])
def test_a_broken_pose_sees_nothing(broken):
    pose = np.eye(4)
    pose[0, 3] = broken
    pixels, visible = project_points(np.ones((7, 3)), pose, PUBLISHED_INTRINSICS, (240, 320))
    assert not visible.any() and not pixels.any()
    assert len(visible_points(np.ones((7, 3)), np.zeros((4, 4)), PUBLISHED_INTRINSICS, (240, 320))[0]) == 0


def test_no_points():
    pixels, visible = project_points(np.zeros((0, 3)), np.eye(4), PUBLISHED_INTRINSICS, (240, 320))
    assert pixels.shape == (0, 2) and visible.shape == (0,)


@pytest.mark.parametrize("size", [(120, 160), (480, 640), (100, 333)])
def test_resized_intrinsics_follow_what_resizing_does_to_pictures(size: tuple[int, int]) -> None:
    """A picture whose pixels hold their own coordinates says after resizing where each came from."""
    rows, columns = torch.meshgrid(torch.arange(240.0), torch.arange(320.0), indexing="ij")
    resized = F.interpolate(torch.stack([rows, columns])[None], size, mode="bilinear", align_corners=False)[0]
    camera = Intrinsics(280.0, 290.0, 150.0, 130.0)
    new = camera.scaled((240, 320), size)
    row, column = size[0] // 3, size[1] // 3
    y, x = resized[:, row, column].tolist()
    assert (column - new.cx) / new.fx == pytest.approx((x - camera.cx) / camera.fx, abs=1e-6)
    assert (row - new.cy) / new.fy == pytest.approx((y - camera.cy) / camera.fy, abs=1e-6)
    matrices = np.tile(np.array([[280.0, 0, 150], [0, 290, 130], [0, 0, 1]]), (3, 1, 1))
    scaled = scale_matrix(matrices, (240, 320), size)
    np.testing.assert_array_equal(scaled, np.tile([[new.fx, 0, new.cx], [0, new.fy, new.cy], [0, 0, 1]], (3, 1, 1)))


def test_a_camera_of_the_same_size_stays_the_same() -> None:
    odd = Intrinsics(288.9, 288.9, 159.123456, 119.654321)
    assert odd.scaled((240, 320), (240, 320)) == odd
