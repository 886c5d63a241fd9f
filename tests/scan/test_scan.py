"""What a path holds is found out without your options, and wrong readings are noticed."""

import json
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from scipy.spatial import cKDTree
from scipy.spatial.transform import Rotation

from tests.helpers.scenes import BoxRoom, write_scenes
from tests.scan.recordings import KINECT, Y_UP, walk, write_frames, write_sens
from xmask3d.errors import UserError
from xmask3d.geometry.camera import Intrinsics, visible_points
from xmask3d.scan.scan import Scan, ScanOptions, open_scan
from xmask3d.scan.views import turn_matrix, turn_pose
from xmask3d.visualize.cloud import write_ply


@pytest.fixture(scope="module")
def room() -> BoxRoom:
    return BoxRoom(3)


def distance_to_room(scan: Scan, room: BoxRoom, world: np.ndarray | None = None) -> float:
    """Median distance in metres of the scan's points to the room's surface; ceilings, which it lacks, left out."""
    points = scan.points
    if world is not None:
        points = (points - world[:3, 3]) @ world[:3, :3]
    points = points[points[:, 2] < 2.3]
    return float(np.median(cKDTree(room.points).query(points)[0]))


def check_views(scan: Scan) -> None:
    """Every view sees a good part of the cloud at the right depth."""
    for name in scan.scene.view_names:
        view = scan.read_view(scan.scene.name, name)
        assert view.image.shape == (240, 320, 3) and view.depth.shape == (240, 320)
        index, _ = visible_points(scan.scene.points, view.pose, view.intrinsics, (240, 320), view.depth, tolerance=0.03)
        assert len(index) > 3000


def test_plain_kinect_folder_with_no_flag(tmp_path: Path, room: BoxRoom) -> None:
    write_frames(tmp_path / "küche", room, count=6, color_size=(480, 640), depth_size=(480, 640))
    scan = open_scan(tmp_path / "küche")
    assert scan.frame_count == 6 and len(scan.scene.view_names) == 6
    assert scan.name == "küche"
    assert any("1000 units per metre" in line for line in scan.lines)
    assert not any(line.startswith("warning") for line in scan.lines), scan.lines
    assert distance_to_room(scan, room) < 0.03
    np.testing.assert_allclose(scan.rotation, np.eye(3), atol=0.02)
    check_views(scan)


VARIANTS = {
    "sub-folders, png, zero is invalid": dict(
        color="color/{}.png", depth="depth/{}.png", pose="pose/{}.txt", invalid=0, intrinsics="intrinsic.txt"
    ),
    "depth in metres": dict(color="rgb/{:04d}.png", depth="depth/{:04d}.npy", pose="poses/{:04d}.txt"),
    "5000 units per metre": dict(unit=5000.0, invalid=0),
    "4000 units per metre": dict(unit=4000.0, invalid=0),
    "world to camera": dict(inverse=True),
    "y up in the camera": dict(y_up_camera=True),
    "colour larger than depth": dict(color_size=(480, 640), depth_size=(120, 160)),
    "no intrinsics": dict(intrinsics=None),
    "intrinsics of another size": dict(matrix=KINECT),
}


@pytest.mark.parametrize("variant", VARIANTS)
def test_readings_are_found(tmp_path: Path, room: BoxRoom, variant: str) -> None:
    write_frames(tmp_path, room, **VARIANTS[variant])
    scan = open_scan(tmp_path)
    assert distance_to_room(scan, room) < 0.03, scan.describe()
    check_views(scan)


def test_wrong_focal_length_is_noticed(tmp_path: Path, room: BoxRoom) -> None:
    write_frames(tmp_path, room, matrix=Intrinsics(410.0, 410.0, 159.5, 119.5))
    scan = open_scan(tmp_path)
    warnings = [line for line in scan.lines if "intrinsics look wrong" in line]
    assert len(warnings) == 1
    found = float(warnings[0].split("focal length of ")[1].split()[0])
    assert abs(found - 262.5) < 15 and "instead of 410" in warnings[0]
    told = open_scan(tmp_path, ScanOptions(intrinsics=(262.5, 262.5, 159.5, 119.5)))
    assert not any("look wrong" in line for line in told.lines)
    assert distance_to_room(told, room) < 0.03


def test_a_focal_length_that_was_told_is_kept(tmp_path: Path, room: BoxRoom) -> None:
    write_frames(tmp_path, room, matrix=Intrinsics(410.0, 410.0, 159.5, 119.5))
    scan = open_scan(tmp_path, ScanOptions(intrinsics=(410.0, 410.0, 159.5, 119.5)))
    view = scan.read_view(scan.name, scan.scene.view_names[0])
    assert view.intrinsics.fx == pytest.approx(410)
    assert not any("used that" in line for line in scan.lines)
    assert any("as found without your options" in line and "intrinsics 262 262" in line for line in scan.lines)


def test_a_lone_frame_says_how_it_is_read(tmp_path: Path, room: BoxRoom) -> None:
    write_frames(tmp_path, room, 1)
    lines = open_scan(tmp_path).lines
    assert any("poses and intrinsics cannot be checked" in line for line in lines)
    assert "depth read as 1000 units per metre" in lines and "poses read as camera-to-world" in lines
    assert any("depth unit is not checked" in line for line in lines)
    told = open_scan(tmp_path, ScanOptions(depth_scale=5000.0)).lines
    assert "depth read as 5000 units per metre" in told and not any("not checked" in line for line in told)


@pytest.mark.parametrize("cloud", [True, False])
def test_positions_on_a_map(tmp_path: Path, room: BoxRoom, cloud: bool) -> None:
    """Frames, and a cloud beside them, at the coordinates of a map are worked on near zero and come out there."""
    shift = np.array([455_123.0, 5_712_456.0, 80.0])
    world = np.eye(4)
    world[:3, 3] = shift
    poses = write_frames(tmp_path, room, 6, world=world)
    if cloud:
        rows = np.concatenate([room.points + shift, np.full((len(room.points), 3), 90)], 1)
        header = f"ply\nformat ascii 1.0\nelement vertex {len(rows)}\n"
        header += "".join(f"property double {axis}\n" for axis in "xyz")
        header += "".join(f"property uchar {channel}\n" for channel in ("red", "green", "blue")) + "end_header"
        np.savetxt(tmp_path / "mesh.ply", rows, fmt=["%.4f"] * 3 + ["%d"] * 3, header=header, comments="")
    scan = open_scan(tmp_path)
    assert any("cameras are far from zero" in line for line in scan.lines)
    assert np.abs(scan.points).max() < 10
    placed = scan.points + scan.origin - shift
    assert len(placed) == len(room.points) if cloud else len(placed) > 10_000
    assert np.median(cKDTree(room.points).query(placed[placed[:, 2] < 2.3])[0]) < (1e-3 if cloud else 0.03)
    view = scan.read_view(scan.name, "2")
    np.testing.assert_allclose(view.pose[:3, 3] + scan.origin, poses[2][:3, 3], atol=1e-6)
    index, _ = visible_points(scan.scene.points, view.pose, view.intrinsics, (240, 320), view.depth, tolerance=0.03)
    assert len(index) > 2000  # the cloud beside the frames is coarse


def test_poses_of_another_recording_are_reported(tmp_path: Path, room: BoxRoom) -> None:
    write_frames(tmp_path, room)
    rng = np.random.default_rng(0)
    poses = sorted(tmp_path.glob("*.pose.txt"))
    texts = [path.read_text() for path in poses]
    for path, other in zip(poses, rng.permutation(len(poses)), strict=True):
        path.write_text(texts[other])
    assert any("only" in line and "agree between frames" in line for line in open_scan(tmp_path).lines)


def test_tum_recording(tmp_path: Path, room: BoxRoom) -> None:
    poses = write_frames(tmp_path, room, color="rgb/{}.png", depth="depth/{}.png", pose=None, intrinsics=None,
                         unit=5000.0, invalid=0, count=6, color_size=(480, 640), depth_size=(480, 640))  # fmt: skip
    times = 1305031100.1 + np.arange(len(poses)) * 0.4
    (tmp_path / "rgb.txt").write_text("# comment\n" + "".join(f"{t:.6f} rgb/{i}.png\n" for i, t in enumerate(times)))
    (tmp_path / "depth.txt").write_text("".join(f"{t + 0.008:.6f} depth/{i}.png\n" for i, t in enumerate(times)))
    rows = []
    for t, pose in zip(times, poses, strict=True):
        rows.append([t - 0.3, 9, 9, 9, 0, 0, 0, 1])  # far in time: must not be taken
        rows.append([t - 0.004, *pose[:3, 3], *Rotation.from_matrix(pose[:3, :3]).as_quat()])
    np.savetxt(tmp_path / "groundtruth.txt", rows, fmt="%.6f")
    scan = open_scan(tmp_path)
    assert "TUM" in scan.kind and any("5000 units" in line for line in scan.lines)
    assert distance_to_room(scan, room) < 0.03
    check_views(scan)


def test_redwood_log_in_a_y_up_world(tmp_path: Path, room: BoxRoom) -> None:
    poses = write_frames(tmp_path, room, color="image/{:05d}.jpg", depth="depth/{:05d}.png", pose=None, world=Y_UP)
    with (tmp_path / "trajectory.log").open("w") as log:
        for i, pose in enumerate(poses):
            log.write(f"{i} {i} {i + 1}\n" + "".join(" ".join(map(str, row)) + "\n" for row in pose))
    scan = open_scan(tmp_path)
    assert distance_to_room(scan, room, Y_UP) < 0.03
    assert any("up is y" in line for line in scan.lines)
    # The worked-on cloud stands upright, the output keeps the scan's frame.
    height = scan.points.astype(float) @ Y_UP[:3, 2]
    np.testing.assert_allclose(scan.scene.points[:, 2], height, atol=0.1)
    check_views(scan)


def test_portrait_pictures_become_two_views(tmp_path: Path, room: BoxRoom) -> None:
    portrait = Intrinsics(300.0, 300.0, 119.5, 159.5)
    for i, pose in enumerate(walk(room)[:6]):
        color, depth, _ = room.render(pose, portrait, (320, 240))
        Image.fromarray(color).save(tmp_path / f"color_{i}.jpg", quality=95)
        Image.fromarray(np.round(depth * 1000).astype(np.uint16)).save(tmp_path / f"depth_{i}.png")
        np.savetxt(tmp_path / f"pose_{i}.txt", pose)
    content = {"width": 240, "height": 320, "fx": 300, "fy": 300, "cx": 119.5, "cy": 159.5}
    (tmp_path / "intrinsics.json").write_text(json.dumps(content))
    scan = open_scan(tmp_path)
    assert scan.scene.view_names[:2] == ["0#0", "0#1"] and len(scan.scene.view_names) == 12
    assert distance_to_room(scan, room) < 0.03
    check_views(scan)


def test_lost_poses_and_damaged_pictures_are_left_out(tmp_path: Path, room: BoxRoom) -> None:
    write_frames(tmp_path, room)
    np.savetxt(tmp_path / "frame-000003.pose.txt", np.full((4, 4), -np.inf))
    (tmp_path / "frame-000001.pose.txt").write_text("-1.#INF 1.#QNAN -1.#IND 0\n" * 4)
    path = tmp_path / "frame-000005.depth.png"
    path.write_bytes(path.read_bytes()[:2000])
    (tmp_path / "frame-000007.color.jpg").unlink()
    scan = open_scan(tmp_path)
    text = scan.describe()
    assert "2 of 7 frames have no valid pose" in text and "frame-000005.depth.png" in text and "no partner" in text
    assert distance_to_room(scan, room) < 0.03


def test_a_damaged_first_picture_or_one_of_another_size_is_left_out(tmp_path: Path, room: BoxRoom) -> None:
    write_frames(tmp_path, room, 6)
    (tmp_path / "frame-000000.color.jpg").write_bytes(b"")
    Image.fromarray(np.zeros((90, 120, 3), np.uint8)).save(tmp_path / "frame-000001.color.jpg")
    scan = open_scan(tmp_path)
    text = scan.describe()
    assert (
        "frame-000000.color.jpg: damaged, or not a picture" in text
        and "is 120 x 90 pixels, the others are 320 x 240" in text
    )
    assert scan.scene.view_names == ["2", "3", "4", "5"] and distance_to_room(scan, room) < 0.03


def test_what_was_told_wrongly_is_named(tmp_path: Path, room: BoxRoom) -> None:
    write_frames(tmp_path, room)
    for options in (ScanOptions(depth_scale=100.0), ScanOptions(poses="world-to-camera")):
        warnings = [line for line in open_scan(tmp_path, options).lines if "as found without your options" in line]
        assert len(warnings) == 1 and "camera-to-world, 1000 units per metre, intrinsics 262 262" in warnings[0]


def test_previews_of_depth_are_no_depth(tmp_path: Path, room: BoxRoom) -> None:
    write_frames(tmp_path, room, 3)
    for path in tmp_path.glob("*.depth.png"):
        Image.fromarray((np.asarray(Image.open(path)) // 256).astype(np.uint8)).save(path)
    assert any("have 8 bits" in line for line in open_scan(tmp_path).lines)


@pytest.mark.parametrize(
    ("kind", "counts"),
    [("depth", "3 depth pictures and no colour"), ("color", "3 pictures without depth: record")],
)
def test_half_a_recording_is_named(tmp_path: Path, room: BoxRoom, kind: str, counts: str) -> None:
    write_frames(tmp_path, room, 3)
    for path in tmp_path.glob("*.depth.png" if kind == "color" else "*.color.jpg"):
        path.unlink()
    with pytest.raises(UserError, match=counts):
        open_scan(tmp_path)


def test_depth_without_a_measurement(tmp_path: Path, room: BoxRoom) -> None:
    write_frames(tmp_path, room, 2)
    for path in tmp_path.glob("*.depth.png"):
        Image.fromarray(np.full((240, 320), 65535, np.uint16)).save(path)
    with pytest.raises(UserError, match="hold no measurement"):
        open_scan(tmp_path)


def test_views_are_chosen_by_coverage(tmp_path: Path, room: BoxRoom) -> None:
    write_frames(tmp_path, room, 12)
    scan = open_scan(tmp_path, ScanOptions(views=4))
    names = [int(name) for name in scan.scene.view_names]
    assert len(names) == 4 and names == sorted(names)
    assert max(np.diff(names)) >= 2  # spread over the walk, not its beginning
    assert any("4 of 12 frames chosen" in line for line in scan.lines)


def test_cloud_beside_the_frames_is_used_only_if_it_fits(tmp_path: Path, room: BoxRoom) -> None:
    write_frames(tmp_path, room, 6)
    colors = np.full((len(room.points), 3), 90, np.uint8)
    write_ply(tmp_path / "mesh.ply", room.points, colors)
    scan = open_scan(tmp_path)
    assert len(scan.points) == len(room.points)
    write_ply(tmp_path / "mesh.ply", room.points[:, [1, 2, 0]] + 5, colors)
    scan = open_scan(tmp_path)
    assert any("does not fit the frames" in line for line in scan.lines)
    assert distance_to_room(scan, room) < 0.03


def test_damaged_pictures_beside_a_cloud_are_left_out(tmp_path: Path, room: BoxRoom) -> None:
    write_frames(tmp_path, room, 6)
    write_ply(tmp_path / "mesh.ply", room.points, np.full((len(room.points), 3), 90, np.uint8))
    for name in ("frame-000002.depth.png", "frame-000004.color.jpg"):
        (tmp_path / name).write_bytes(b"x")
    scan = open_scan(tmp_path)
    assert len(scan.points) == len(room.points) and scan.scene.view_names == ["0", "1", "3", "5"]
    for name in ("frame-000002.depth.png", "frame-000004.color.jpg"):
        assert sum("left out" in line and name in line for line in scan.lines) == 1


def test_readings_of_the_same_frames_have_other_fingerprints(tmp_path: Path, room: BoxRoom) -> None:
    write_frames(tmp_path, room, 3)
    write_ply(tmp_path / "mesh.ply", room.points, np.full((len(room.points), 3), 90, np.uint8))
    found = open_scan(tmp_path).fingerprint
    assert found == open_scan(tmp_path, ScanOptions(depth_scale=1000.0)).fingerprint
    others = (dict(intrinsics=(300.0, 300.0, 159.5, 119.5)), dict(depth_scale=1010.0), dict(farthest=8.0))
    assert len({found, *(open_scan(tmp_path, ScanOptions(**other)).fingerprint for other in others)}) == 4


def test_processed_scene_is_taken_as_it_is(tmp_path: Path) -> None:
    root = write_scenes(tmp_path / "data", {"val": 1}, views=3)
    for path in (root / "scannet_2d/scene0000_00", root / "scannet_3d/val/scene0000_00_vh_clean_2.pth"):
        scan = open_scan(path)
        assert scan.kind == "processed ScanNet scene" and scan.scene.view_names == ["0", "20", "40"]
        np.testing.assert_array_equal(scan.scene.points, BoxRoom(0).points)
        assert scan.read_view("scene0000_00", "20").image.shape == (240, 320, 3)
    with pytest.raises(UserError, match="data set of many scenes"):
        open_scan(root)


@pytest.mark.parametrize(
    ("prepare", "message"),
    [
        (lambda p: None, "no such file or folder"),
        (lambda p: p.mkdir(), "found no scan; expected"),
        (lambda p: p.write_text("x"), "not a point cloud that is understood"),
    ],
)
def test_one_clear_line(tmp_path: Path, prepare, message: str) -> None:
    path = tmp_path / "scan"
    prepare(path)
    with pytest.raises(UserError, match=message) as caught:
        open_scan(path)
    assert "\n" not in str(caught.value)


def test_missing_poses_are_named(tmp_path: Path, room: BoxRoom) -> None:
    write_frames(tmp_path, room, 3, pose=None)
    with pytest.raises(UserError, match="3 colour and depth frames but no poses"):
        open_scan(tmp_path)


def test_sens_file_whole_and_cut_short(tmp_path: Path, room: BoxRoom) -> None:
    path = tmp_path / "scene0707_00.sens"
    write_sens(path, room)
    scan = open_scan(tmp_path)
    assert scan.name == "scene0707_00" and scan.frame_count == 6 and ".sens" in scan.kind
    assert distance_to_room(scan, room) < 0.03
    check_views(scan)
    path.write_bytes(path.read_bytes()[:-1000])
    assert "5 of 6 frames are complete" in open_scan(path).describe()
    path.write_bytes(b"\x04\x00\x00\x00" + bytes(20))
    with pytest.raises(UserError, match=r"scene0707_00\.sens"):
        open_scan(path)


@pytest.mark.parametrize("turns", [1, 2, 3])
def test_pictures_on_their_side_are_turned_upright(tmp_path: Path, room: BoxRoom, turns: int) -> None:
    """A camera held on its side writes turned pictures; views come out as from a camera held straight."""
    k = KINECT.scaled((480, 640), (240, 320))
    matrix = np.array([[k.fx, 0, k.cx + 4], [0, k.fy, k.cy - 3], [0, 0, 1]])
    held = turn_matrix(matrix, (240, 320), turns)
    for i, pose in enumerate(walk(room)[:6]):
        color, depth, _ = room.render(pose, Intrinsics(k.fx, k.fy, k.cx + 4, k.cy - 3), (240, 320))
        Image.fromarray(np.rot90(color, turns)).save(tmp_path / f"color_{i}.png")
        Image.fromarray(np.rot90(depth * 1000, turns).round().astype(np.uint16)).save(tmp_path / f"depth_{i}.png")
        np.savetxt(tmp_path / f"pose_{i}.txt", turn_pose(pose, turns))
    np.savetxt(tmp_path / "intrinsics.txt", held)
    scan = open_scan(tmp_path, ScanOptions(up="z"))
    assert any("6 pictures lie on their side or head" in line for line in scan.lines)
    assert scan.scene.view_names == [str(i) for i in range(6)]
    view = scan.read_view(scan.name, "2")
    np.testing.assert_allclose(view.pose, walk(room)[2], atol=1e-6)
    np.testing.assert_allclose(view.intrinsics.cx, k.cx + 4, atol=1e-9)
    upright, _, _ = room.render(walk(room)[2], Intrinsics(k.fx, k.fy, k.cx + 4, k.cy - 3), (240, 320))
    np.testing.assert_array_equal(view.image, upright)
    check_views(scan)


def test_pictures_turned_against_depth_and_pictures_of_one_colour_are_warned_of(tmp_path: Path, room: BoxRoom) -> None:
    write_frames(tmp_path, room, 4, color_size=(120, 160), depth_size=(120, 160))
    assert not any("one kind was turned" in line or "one colour" in line for line in open_scan(tmp_path).lines)
    for path in tmp_path.glob("*.color.jpg"):
        Image.open(path).transpose(Image.Transpose.ROTATE_90).save(path)
    assert any("one kind was turned; turn it back" in line for line in open_scan(tmp_path).lines)
    for path in tmp_path.glob("*.color.jpg"):
        Image.new("RGB", (160, 120)).save(path)
    assert "warning: the pictures have one colour only; the networks will see shapes only" in open_scan(tmp_path).lines


def test_names_cannot_steer_the_terminal(tmp_path: Path) -> None:
    path = tmp_path / "ro\x1b[31mom\n.xyz"
    np.savetxt(path, np.random.default_rng(0).random((200, 3)) * (4, 3, 2.5))
    assert open_scan(path).describe().startswith("ro\\x1b[31mom\\n: point cloud ro\\x1b[31mom\\n.xyz; 200 points")
