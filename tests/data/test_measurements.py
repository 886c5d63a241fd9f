"""Numbers that are no measurements are repaired and told, or refused by name."""

import numpy as np
import pytest
import torch

from xmask3d.data.files import read_intrinsics, read_points, read_pose
from xmask3d.data.measurements import checked_camera, checked_colors, checked_labels, checked_points, checked_pose
from xmask3d.errors import UserError
from xmask3d.geometry.camera import Intrinsics
from xmask3d.scan import formats

COLORS = np.linspace(-1, 1, 60, dtype=np.float32).reshape(20, 3)


def test_sound_colors_stay_as_they_are() -> None:
    told: list[str] = []
    assert checked_colors(COLORS, "a.pth", told.append) is COLORS
    assert checked_colors(COLORS[:0], "a.pth", told.append).shape == (0, 3)
    np.testing.assert_array_equal(checked_colors(COLORS * 1.005, "a", told.append), np.clip(COLORS * 1.005, -1, 1))
    assert not told


@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
@pytest.mark.parametrize("bytes_", [False, True])
def test_few_colors_that_are_no_numbers_become_grey(bad: float, bytes_: bool) -> None:
    told: list[str] = []
    colors = (COLORS + 1) * 127.5 if bytes_ else COLORS.copy()
    colors[3, 1] = bad
    read = checked_colors(colors, "a.pth", told.append)
    assert not read[3].any() and read.dtype == np.float32
    np.testing.assert_allclose(np.delete(read, 3, 0), np.delete(COLORS, 3, 0), atol=1e-6)
    assert told[0] == "a.pth: 1 of 20 points have colours that are NaN or infinite; taken as grey"
    assert len(told) == 1 + bytes_


@pytest.mark.parametrize(
    ("colors", "message"),
    [
        (COLORS * np.nan, "NaN or infinite, 20 of 20"),
        (COLORS * 2, "-2 to 2, expected -1 to 1"),
        ((COLORS + 1) * 30_000, "0 to 60000"),
        (COLORS * 127, "-127 to 127"),
    ],
)
def test_other_colors_are_refused(colors: np.ndarray, message: str) -> None:
    with pytest.raises(UserError, match=message):
        checked_colors(colors, "a.pth", print)


@pytest.mark.parametrize(
    ("labels", "message"),
    [
        (np.array([1.0, np.nan]), "no whole numbers"),
        (np.array([1.0, np.inf]), "no whole numbers"),
        (np.array([1.5, 2]), "no whole numbers"),
        (np.array([1, 1 << 40]), "no list of classes"),
        (np.array([np.iinfo(np.int64).min, 1]), "no list of classes"),
        (np.array([np.iinfo(np.uint64).max, 1], np.uint64), "no list of classes"),
        (np.array([1, 2, 3]), "3 labels for another number of points, 2"),
    ],
)
def test_labels_that_are_none(labels: np.ndarray, message: str) -> None:
    with pytest.raises(UserError, match=message):
        checked_labels(labels, 2, "a.pth")


def test_labels_of_any_type() -> None:
    for dtype in ("<f8", ">f4", "u1", "<i8", "?"):
        read = checked_labels(np.array([[0], [1]], dtype), 2, "a.pth")
        assert read.dtype == np.int64 and read.tolist() == [0, 1]
    assert checked_labels(np.array([-100, 255]), 2, "a.pth").tolist() == [-100, 255]


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda pose: pose[:3, :3].__imul__(2), "rotation"),
        (lambda pose: pose[0].__imul__(-1), "rotation"),
        (lambda pose: pose[0, :3].__iadd__(0.1), "rotation"),
        (lambda pose: pose[3, :3].__iadd__(1), "last row"),
        (lambda pose: pose[:3, 3].__iadd__(1e9), "m away"),
    ],
)
def test_poses_that_are_no_rigid_motion(tmp_path, change, message: str) -> None:
    pose = np.eye(4)
    assert checked_pose(pose, "a") is pose
    change(pose)
    np.savetxt(tmp_path / "0.txt", pose)
    with pytest.raises(UserError, match=rf"0\.txt: .*{message}"):
        read_pose(tmp_path / "0.txt")


@pytest.mark.parametrize(
    ("camera", "message"),
    [
        ((577, 577, 700, 240), "principal point"),
        ((577, 577, -3, 240), "principal point"),
        ((-577, 577, 320, 240), "principal point"),
        ((5, 5, 320, 240), "focal lengths 5"),
        ((1e9, 1e9, 320, 240), "focal lengths"),
        ((577, 5770, 320, 240), "focal lengths"),
    ],
)
def test_cameras_that_are_none(tmp_path, camera: tuple, message: str) -> None:
    sound = Intrinsics(577, 577, 320, 240)
    assert checked_camera(sound, (480, 640), "a") is sound
    fx, fy, cx, cy = camera
    np.savetxt(tmp_path / "intrinsics.txt", [[fx, 0, cx], [0, fy, cy], [0, 0, 1]])
    with pytest.raises(UserError, match=rf"intrinsics\.txt: .*{message}"):
        read_intrinsics(tmp_path, (240, 320), (480, 640))


def test_points() -> None:
    points = np.zeros((2, 3), np.float32)
    assert checked_points(points, "a") is points
    for value, message in ((np.nan, "NaN"), (np.inf, "NaN"), (1e30, "m away")):
        with pytest.raises(UserError, match=message):
            checked_points(points + np.float32(value), "a.pth")


def test_a_scene_of_bytes_is_read_as_one_of_floats(tmp_path, caplog) -> None:
    for name, colors in (
        ("a", COLORS),
        ("b", np.rint((COLORS + 1) * 127.5)),
        ("c", np.uint8((COLORS + 1) * 127.5 + 0.5)),
    ):
        torch.save((np.zeros((20, 3)), colors, np.zeros(20)), tmp_path / f"{name}.pth")
        np.testing.assert_allclose(read_points(tmp_path / f"{name}.pth")[1], COLORS, atol=0.005)
    assert [record.message.split("/")[-1] for record in caplog.records] == [
        f"{name}.pth: colours are 0 to 255, expected -1 to 1; taken as bytes" for name in "bc"
    ]


def test_depths_beyond_any_sensor_are_none(tmp_path) -> None:
    np.save(tmp_path / "0.npy", np.array([[1.5, np.nan, np.inf], [-1, 1e30, 0]], np.float32))
    np.testing.assert_array_equal(formats.read_depth(tmp_path / "0.npy"), [[1.5, 0, 0], [0, 0, 0]])
