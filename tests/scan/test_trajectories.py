"""Poses and trajectories in every form that recorders write are the same poses."""

from pathlib import Path

import numpy as np
import pytest
from scipy.spatial.transform import Rotation

from tests.scan.test_layouts import write_pictures
from xmask3d.errors import UserError
from xmask3d.scan.layouts import find_recording
from xmask3d.scan.trajectories import read_pose, read_trajectory, seconds


def some_poses(count: int = 6) -> np.ndarray:
    poses = np.tile(np.eye(4), (count, 1, 1))
    poses[:, :3, :3] = Rotation.random(count, random_state=1).as_matrix()
    poses[:, :3, 3] = np.random.default_rng(2).normal(size=(count, 3))
    return poses


POSES = some_poses()
TURNS = Rotation.from_matrix(POSES[:, :3, :3]).as_quat()
PLACES = POSES[:, :3, 3]
TIMES = 1700000000 + np.arange(6) / 10


def table(*columns: np.ndarray, form: str = "%.9f", between: str = " ") -> str:
    rows = np.hstack([column.reshape(6, -1) for column in columns])
    return "\n".join(between.join(form % value for value in row) for row in rows) + "\n"


@pytest.mark.parametrize(
    ("name", "text", "keys"),
    [
        ("groundtruth.txt", "timestamp tx ty tz qx qy qz qw\n" + table(TIMES, PLACES, TURNS), [TIMES]),
        ("groundtruth.txt", "\ufeff# time, place\n" + table(TIMES, PLACES, TURNS).replace("\n", "\r\n"), [TIMES]),
        (
            "odometry.csv",
            "timestamp, frame, x, y, z, qx, qy, qz, qw\n" + table(TIMES, np.arange(6), PLACES, TURNS, between=", "),
            [TIMES, np.arange(6)],
        ),
        (
            "poses.txt",
            "#timestamp x y z qx qy qz qw id\n" + table(TIMES, PLACES, TURNS, np.arange(1, 7)),
            [TIMES, np.arange(1, 7)],
        ),
        ("poses.txt", table(TIMES, PLACES, TURNS, np.arange(1, 7)), [TIMES, np.arange(1, 7)]),
        (
            "traj.txt",
            "#timestamp [ns], p_RS_R_x [m], p_RS_R_y [m], p_RS_R_z [m], q_RS_w [], q_RS_x [], q_RS_y [], q_RS_z []\n"
            + table(TIMES * 1e9, PLACES, TURNS[:, [3, 0, 1, 2]], between=","),
            [TIMES * 1e9],
        ),
        ("poses.txt", table(PLACES, TURNS), []),
        ("poses.txt", table(TURNS, PLACES), []),
        ("poses.txt", table(POSES, form="%.12e"), []),
        ("poses.txt", "\n".join("\n".join(" ".join(map(str, r)) for r in p) for p in POSES), []),
        ("poses.txt", "\n".join("\n".join(" ".join(map(str, r)) for r in p[:3]) for p in POSES), []),
    ],
    ids=["titles", "mark", "stray", "rtabmap", "rtabmap untitled", "nanoseconds", "7", "7 turned", "16", "4x4", "3x4"],
)
def test_trajectories(tmp_path: Path, name: str, text: str, keys: list[np.ndarray]) -> None:
    (tmp_path / name).write_text(text, encoding="utf-8")
    found = read_trajectory(tmp_path / name)
    np.testing.assert_allclose(found.poses, POSES, atol=1e-7)
    assert len(found.keys) == len(keys) and not found.inverse
    for column, expected in zip(found.keys, keys, strict=True):
        np.testing.assert_allclose(column, expected)


def test_arkitscenes_writes_axes_times_angles_of_world_to_camera(tmp_path: Path) -> None:
    inverse = np.linalg.inv(POSES)
    axes = Rotation.from_matrix(inverse[:, :3, :3]).as_rotvec()
    (tmp_path / "lowres_wide.traj").write_text(table(TIMES, axes, inverse[:, :3, 3], form="%.12f"))
    found = read_trajectory(tmp_path / "lowres_wide.traj")
    assert found.inverse
    np.testing.assert_allclose(np.linalg.inv(found.poses), POSES, atol=1e-9)


@pytest.mark.parametrize("text", ["", "a b c\n", "1 2 3 4\n5 6 7 8\n", "1 2 3\n"])
def test_files_that_are_no_trajectory(tmp_path: Path, text: str) -> None:
    (tmp_path / "poses.txt").write_text(text)
    with pytest.raises(UserError, match=r"poses\.txt: not a trajectory; known"):
        read_trajectory(tmp_path / "poses.txt")


def test_poses_of_seven_numbers(tmp_path: Path) -> None:
    for order in ((PLACES, TURNS), (TURNS, PLACES)):
        (tmp_path / "pose.txt").write_text(" ".join(map(repr, np.hstack([part[0] for part in order]).tolist())))
        np.testing.assert_allclose(read_pose(tmp_path / "pose.txt"), POSES[0], atol=1e-12)


def test_times_in_parts_of_seconds() -> None:
    for unit in (1, 1e3, 1e6, 1e9):
        np.testing.assert_allclose(seconds(TIMES * unit), TIMES)
    np.testing.assert_array_equal(seconds(np.arange(3.0)), np.arange(3.0))


def test_lines_find_their_frames_by_number_or_time(tmp_path: Path) -> None:
    """RTAB-Map's numbers, in any order; ARKitScenes' times, which are off by milliseconds."""
    write_pictures(tmp_path / "rtabmap", range(1, 6), "rgb/{}.png", "depth/{}.png")
    (tmp_path / "rtabmap/poses.txt").write_text(
        "\n".join(reversed(table(TIMES, PLACES, TURNS, np.arange(6)).splitlines()))
    )
    np.testing.assert_allclose(find_recording(tmp_path / "rtabmap").poses, POSES[1:], atol=1e-7)
    times = [3349.284, 3349.384, 3349.499]
    write_pictures(tmp_path / "phone", times, "lowres_wide/4_{}.png", "lowres_depth/4_{}.png")
    inverse = np.linalg.inv(POSES)
    axes = Rotation.from_matrix(inverse[:, :3, :3]).as_rotvec()
    lines = table(3349.086 + np.arange(6) / 10, axes, inverse[:, :3, 3])
    (tmp_path / "phone/lowres_wide.traj").write_text(lines)
    recording = find_recording(tmp_path / "phone")
    assert recording.conventions[0] == "world-to-camera" and recording.names == [str(time) for time in times]
    np.testing.assert_allclose(recording.poses, inverse[2:5], atol=1e-7)


def test_lists_of_windows(tmp_path: Path) -> None:
    write_pictures(tmp_path, range(6), "rgb/{}.png", "depth/{}.png")
    for name in ("rgb", "depth"):
        lines = "".join(f"{time:.6f} {name}\\{i}.png\r\n" for i, time in enumerate(TIMES))
        (tmp_path / f"{name}.txt").write_text("timestamp filename\r\n" + lines)
    (tmp_path / "groundtruth.txt").write_text(table(TIMES * 1e9, PLACES, TURNS, form="%.9f"))
    recording = find_recording(tmp_path)
    assert len(recording) == 6 and recording.load_color(5).shape == (6, 8, 3)
    np.testing.assert_allclose(recording.poses, POSES, atol=1e-7)
