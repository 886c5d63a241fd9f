"""Up of clouds without cameras: the geometry of rooms, or the camera's frame, decides; a named axis is refined."""

import numpy as np
import pytest
from scipy.spatial.transform import Rotation

from tests.helpers.scenes import BoxRoom
from tests.scan.recordings import KINECT, shoot, walk
from xmask3d.scan.clouds import read_cloud
from xmask3d.scan.gravity import NAMES, find_up, refine, rotation_to_z
from xmask3d.scan.viewpoint import VOLUME, camera_of


def furnished_room(ceiling: bool) -> np.ndarray:
    """Points of a floor, four walls, a table, a bed and perhaps a ceiling, z up."""
    rng = np.random.default_rng(0)

    def box(count: int, low: tuple, high: tuple) -> np.ndarray:
        return rng.uniform(low, high, (count, 3))

    walls = [box(3000, (0, y, 0), (5, y, 2.4)) for y in (0, 4)] + [box(3000, (x, 0, 0), (x, 4, 2.4)) for x in (0, 5)]
    furniture = [box(1500, (2, 1, 0.75), (3.5, 2, 0.75)), box(2500, (0.2, 2, 0.5), (2, 3.8, 0.5))]
    bare = [box(6000, (0, 0, 2.4), (5, 4, 2.4))] if ceiling else []
    return np.concatenate([box(4500, (0, 0, 0), (5, 4, 0)), *walls, *furniture, *bare])


@pytest.mark.parametrize("ceiling", [True, False])
@pytest.mark.parametrize("name", NAMES)
def test_furniture_decides_which_end_is_up(name: str, ceiling: bool) -> None:
    axis = np.array(NAMES[name], float)
    found = find_up(furnished_room(ceiling) @ rotation_to_z(axis))
    np.testing.assert_allclose(found.up, axis, atol=0.03)
    assert "unsure" not in found.words


def test_an_empty_box_is_unsure() -> None:
    points = np.random.default_rng(0).uniform(0, 1, (20_000, 3)) * (5, 4, 2.4)
    side = np.arange(len(points)) % 3
    for axis, size in enumerate((5, 4, 2.4)):
        rows = side == axis
        points[rows, axis] = np.rint(points[rows, axis] / size) * size
    found = find_up(points)
    assert found.up[2] == 1 and "unsure: it may be -z (--up -z turns it)" in found.words


def test_tilts_are_found_to_a_degree() -> None:
    room, rng = furnished_room(True), np.random.default_rng(4)
    for _ in range(6):
        turn = Rotation.from_euler("xy", rng.uniform(-21, 21, 2), degrees=True).as_matrix()
        found = find_up(room @ turn.T)
        np.testing.assert_allclose(found.up, turn[:, 2], atol=0.02)
        np.testing.assert_allclose(found.rotation @ found.up, (0, 0, 1), atol=1e-9)


def test_without_its_floor_a_room_stands_by_its_walls() -> None:
    room = furnished_room(False)
    axis = np.array([0.0, -1, 0])
    np.testing.assert_allclose(find_up(room[room[:, 2] > 0.8] @ rotation_to_z(axis)).up @ axis, 1, atol=0.02)


def view(index: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Points of one frame of the box room in the camera's frame (h x w x 3, NaN where unknown), and its up."""
    room, size = BoxRoom(3), (240, 320)
    pose, k = walk(room)[index], KINECT.scaled((480, 640), size)
    depth = shoot(room, pose, size, size)[1]
    u, v = np.meshgrid(np.arange(320), np.arange(240))
    points = np.stack([(u - k.cx) / k.fx, (v - k.cy) / k.fy, np.ones(size)], -1) * depth[..., None]
    return np.where(depth[..., None] > 0, points, np.nan), pose, pose[:3, :3].T @ (0, 0, 1)


@pytest.mark.parametrize("index", [0, 4, 8])
@pytest.mark.parametrize("place", [(0, 0, 0), VOLUME])
def test_a_cloud_in_the_frame_of_its_camera(index: int, place: tuple) -> None:
    points, _, up = view(index)
    points = points[np.isfinite(points).all(-1)] + place
    camera = camera_of(points)
    np.testing.assert_array_equal(camera, np.eye(3))
    assert find_up(points, camera=camera).up @ up > np.cos(np.radians(20))


def test_whole_rooms_are_in_no_camera_frame() -> None:
    room = furnished_room(True)
    for name in NAMES:
        turned = room @ rotation_to_z(np.array(NAMES[name], float))
        assert camera_of(turned) is None and camera_of(turned - turned.min(0)) is None
        assert camera_of(turned + (0, 0, 50)) is None


def write_pcd(path, points: np.ndarray, width: int, viewpoint: str = "0 0 0 1 0 0 0") -> None:
    count = len(points)
    path.write_text(
        f"VERSION 0.7\nFIELDS x y z\nSIZE 4 4 4\nTYPE F F F\nCOUNT 1 1 1\nWIDTH {width}\nHEIGHT {count // width}\n"
        f"VIEWPOINT {viewpoint}\nPOINTS {count}\nDATA ascii\n" + "\n".join(" ".join(map(str, row)) for row in points)
    )


def test_pcd_tells_its_camera(tmp_path) -> None:
    """By the order of an organised cloud, in any frame, and by VIEWPOINT."""
    points, pose, _ = view(0)
    world = points.reshape(-1, 3) @ pose[:3, :3].T + pose[:3, 3]
    write_pcd(tmp_path / "a.pcd", world, 320)
    camera = read_cloud(tmp_path / "a.pcd").camera
    np.testing.assert_allclose(camera.T @ camera, np.eye(3), atol=1e-6)
    assert camera[:, 1] @ pose[:3, 1] > 0.9
    x, y, z, w = Rotation.from_matrix(pose[:3, :3]).as_quat()
    known = world[np.isfinite(world).all(1)][::3]
    write_pcd(tmp_path / "b.pcd", known, len(known), f"{pose[0, 3]} {pose[1, 3]} {pose[2, 3]} {w} {x} {y} {z}")
    np.testing.assert_allclose(read_cloud(tmp_path / "b.pcd").camera, pose[:3, :3], atol=1e-6)
    write_pcd(tmp_path / "c.pcd", known, len(known))
    assert read_cloud(tmp_path / "c.pcd").camera is None


@pytest.mark.parametrize("name", NAMES)
def test_a_named_axis_is_refined(name: str) -> None:
    room, axis = furnished_room(True), np.array(NAMES[name], float)
    upright = room @ rotation_to_z(axis)
    straight = refine(upright, name)
    np.testing.assert_array_equal(straight.up, axis)
    assert straight.words == f"up is {name}, as given"
    turn = Rotation.from_rotvec(np.radians(17) * np.roll(axis, 1)).as_matrix()
    tilted = refine(upright @ turn.T, name)
    np.testing.assert_allclose(tilted.up, turn @ axis, atol=0.02)
    assert tilted.words == f"up is {name}, as given, tilted by 17 degrees as the level surfaces are"


def test_few_points_are_taken_as_they_are() -> None:
    points = np.random.default_rng(0).uniform(0, 1, (30, 3))
    found = find_up(points)
    assert found.up[2] == 1 and "too little surface to decide" in found.words
    assert (refine(points, "-y").up == (0, -1, 0)).all()
