"""Which files belong together: frames and their poses, clouds beside them, lists of times."""

from collections.abc import Iterable
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from xmask3d.errors import UserError
from xmask3d.scan.layouts import find_recording
from xmask3d.scan.scan import open_scan


def write_pictures(
    folder: Path, numbers: Iterable[int], color: str = "color/{:04d}.png", depth: str = "depth/{:04d}.png"
) -> None:
    for number in numbers:
        for name, kind in ((color, np.uint8), (depth, np.uint16)):
            path = folder / name.format(number)
            path.parent.mkdir(parents=True, exist_ok=True)
            Image.fromarray(np.full((6, 8), 100, kind)).save(path)


def moved(x: float) -> np.ndarray:
    """A pose that is told by where it stands."""
    pose = np.eye(4)
    pose[0, 3] = x
    return pose


def write_trajectory(path: Path, count: int) -> None:
    np.savetxt(path, [moved(x).ravel() for x in range(count)])


@pytest.mark.parametrize(
    ("numbers", "lost", "lines", "first"),
    [
        (range(1, 13), ["color/0007.png"], 12, 1),
        (range(12), ["color/0007.png"], 12, 0),
        (range(1, 13), ["color/0007.png", "depth/0007.png"], 12, 1),
        (range(1, 13), ["color/0001.png", "depth/0012.png"], 12, 1),
        (range(12), ["color/0007.png", "depth/0007.png"], 20, 0),
    ],
)
def test_lines_of_a_trajectory_keep_their_frames(
    tmp_path: Path, numbers: range, lost: list[str], lines: int, first: int
) -> None:
    write_pictures(tmp_path, numbers)
    for name in lost:
        (tmp_path / name).unlink()
    write_trajectory(tmp_path / "traj.txt", lines)
    recording = find_recording(tmp_path)
    gone = {int(Path(name).stem) for name in lost}
    assert recording.names == [str(number) for number in numbers if number not in gone]
    np.testing.assert_array_equal(recording.poses[:, 0, 3], [int(name) - first for name in recording.names])
    assert any("traj.txt: its" in note for note in recording.notes)


def test_steps_between_frames(tmp_path: Path) -> None:
    write_pictures(tmp_path, (10, 20, 30, 40))
    (tmp_path / "depth/0020.png").unlink()
    write_trajectory(tmp_path / "traj.txt", 4)
    np.testing.assert_array_equal(find_recording(tmp_path).poses[:, 0, 3], [0, 2, 3])


def test_a_trajectory_that_could_begin_at_0_or_1_is_refused(tmp_path: Path) -> None:
    write_pictures(tmp_path, range(3, 9))
    write_trajectory(tmp_path / "traj.txt", 12)
    with pytest.raises(UserError, match=r"traj\.txt: 12 poses without frame numbers for pictures 3 to 8"):
        find_recording(tmp_path)
    np.savetxt(tmp_path / "traj.txt", [[x, *moved(x).ravel()] for x in range(12)])
    np.testing.assert_array_equal(find_recording(tmp_path).poses[:, 0, 3], range(3, 9))


def test_the_number_that_differs_is_the_frame(tmp_path: Path) -> None:
    write_pictures(tmp_path, range(6), "color/{:06d}_cam1.png", "depth/{:06d}_cam1.png")
    (tmp_path / "pose").mkdir()
    for x in range(6):
        np.savetxt(tmp_path / f"pose/{x:06d}_cam1.txt", moved(x))
    recording = find_recording(tmp_path)
    assert recording.names == [str(x) for x in range(6)]
    np.testing.assert_array_equal(recording.poses[:, 0, 3], range(6))
    write_pictures(tmp_path, range(6), "color/{:06d}_cam2.png", "depth/{:06d}_cam2.png")
    recording = find_recording(tmp_path)
    assert recording.names == [f"{x:06d}_cam1" for x in range(6)]
    np.testing.assert_array_equal(recording.poses[:, 0, 3], range(6))
    assert any("6 frames have no pose file" in note for note in recording.notes)


def test_frames_that_cannot_be_told_apart_are_refused(tmp_path: Path) -> None:
    """Depth maps say no room, so that a number alone would pair them with either."""
    for room in ("kitchen", "hall"):
        write_pictures(tmp_path, range(6), f"color/{room}_{{}}.png", "depth/{}.png")
    with pytest.raises(UserError, match=r"hall_0\.png and kitchen_0\.png seem to be of one frame, 0"):
        find_recording(tmp_path)


def test_frames_of_two_rooms_are_never_mixed(tmp_path: Path) -> None:
    for room, color, depth in (("kitchen", (0, 1, 3), (0, 1, 2)), ("hall", (0, 1, 2), (0, 1, 2, 3))):
        write_pictures(tmp_path, color, color=f"color/{room}_{{:03d}}.png", depth=f"other/{room}_{{:03d}}.png")
        write_pictures(tmp_path, depth, color=f"other/{room}_{{:03d}}.png", depth=f"depth/{room}_{{:03d}}.png")
    for path in (tmp_path / "other").iterdir():
        path.unlink()
    (tmp_path / "pose").mkdir()
    for start, room in enumerate(("hall", "kitchen")):
        for x in range(4):
            np.savetxt(tmp_path / f"pose/{room}_{x:03d}.txt", moved(10 * start + x))
    recording = find_recording(tmp_path)
    assert recording.names == ["hall_000", "hall_001", "hall_002", "kitchen_000", "kitchen_001"]
    np.testing.assert_array_equal(recording.poses[:, 0, 3], [0, 1, 2, 10, 11])
    assert any("3 pictures have no partner" in note for note in recording.notes)


def test_names_that_differ_in_words_too(tmp_path: Path) -> None:
    """As Matterport3D: a hash that tells the place, i or d for the role, two numbers."""
    for x, place in enumerate(("c4ca4238d0", "d9a5aa", "a1d")):
        write_pictures(tmp_path, range(2), f"a_color_images/{place}_i0_{{}}.png", f"b_depth_images/{place}_d0_{{}}.png")
        (tmp_path / "camera_poses").mkdir(exist_ok=True)
        for y in range(2):
            np.savetxt(tmp_path / f"camera_poses/{place}_pose_0_{y}.txt", moved(10 * x + y))
    recording = find_recording(tmp_path)
    assert recording.names[:2] == ["a1d_i0_0", "a1d_i0_1"]
    np.testing.assert_array_equal(recording.poses[:, 0, 3], [20, 21, 0, 1, 10, 11])


def test_a_second_file_of_a_frame_is_named(tmp_path: Path) -> None:
    names = "frame-{:06d}.color.png", "frame-{:06d}.depth.png"
    write_pictures(tmp_path, range(3), *names)
    write_pictures(tmp_path, range(2), names[0], "frame-{:06d}.depth.proj.png")
    for x in range(3):
        np.savetxt(tmp_path / f"frame-{x:06d}.pose.txt", moved(x))
    recording = find_recording(tmp_path)
    assert recording.names == ["0", "1", "2"]
    assert any(
        "2 pictures have no partner (colour without depth or the reverse), as frame-000000.depth.proj.png" in note
        for note in recording.notes
    )


def test_a_damaged_picture_without_a_telling_name_is_left_out(tmp_path: Path) -> None:
    write_pictures(tmp_path, range(3), "a{}.jpg", "{}.png")
    (tmp_path / "2.png").write_bytes(b"")
    write_trajectory(tmp_path / "traj.txt", 3)
    recording = find_recording(tmp_path)
    assert recording.names == ["0", "1"]
    assert any(f"left out: {tmp_path / '2.png'}: cannot be read as a picture" in note for note in recording.notes)


def test_poses_without_their_last_row(tmp_path: Path) -> None:
    write_pictures(tmp_path, range(3))
    (tmp_path / "pose").mkdir()
    for x in range(3):
        pose = moved(x)
        pose[3] = 0
        np.savetxt(tmp_path / f"pose/{x}.txt", pose)
    np.testing.assert_array_equal(find_recording(tmp_path).poses, [moved(x) for x in range(3)])
    np.savetxt(tmp_path / "pose/2.txt", moved(2).T)  # a translation in the last row
    recording = find_recording(tmp_path)
    np.testing.assert_array_equal(recording.poses, [moved(0), moved(1)])
    assert any("1 of 3 frames have no valid pose" in note for note in recording.notes)


def test_several_clouds_beside_the_frames_are_named_and_results_are_none(tmp_path: Path) -> None:
    write_pictures(tmp_path, range(2))
    write_trajectory(tmp_path / "traj.txt", 2)
    for name in ("labels.ply", "mesh.ply", "heat_red_chair.ply"):
        (tmp_path / name).touch()
    recording = find_recording(tmp_path)
    assert recording.cloud is None
    assert any("3 point clouds beside the frames (heat_red_chair.ply, labels.ply ...)" in n for n in recording.notes)
    (tmp_path / "summary.json").write_text("{}")
    recording = find_recording(tmp_path)
    assert recording.cloud == tmp_path / "mesh.ply" and not any("point clouds" in note for note in recording.notes)


def test_one_of_several_streams_is_to_be_named(tmp_path: Path) -> None:
    for name in ("scene0000_00.sens", "scene0000_01.sens"):
        (tmp_path / name).touch()
    with pytest.raises(UserError, match=r"2 \.sens files \(scene0000_00\.sens, scene0000_01\.sens\); name one"):
        open_scan(tmp_path)


def test_lists_and_poses_that_say_no_times(tmp_path: Path) -> None:
    (tmp_path / "rgb.txt").write_text("1 rgb/1.png\n")
    (tmp_path / "depth.txt").write_text("# none\n")
    write_trajectory(tmp_path / "groundtruth.txt", 2)
    with pytest.raises(UserError, match=r"depth\.txt: names no picture"):
        find_recording(tmp_path)
    (tmp_path / "depth.txt").write_text("1 depth/1.png\n")
    with pytest.raises(UserError, match=r"groundtruth\.txt: poses without times"):
        find_recording(tmp_path)
