"""Exports of apps and reconstruction programs give the poses, intrinsics and depth that a plain folder gives."""

import json
import struct
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from scipy.spatial.transform import Rotation

from tests.helpers.scenes import BoxRoom
from tests.scan.recordings import KINECT, Y_UP, write_frames
from xmask3d.errors import UserError
from xmask3d.scan.layouts import find_recording
from xmask3d.scan.reconstructions import MODELS
from xmask3d.scan.recording import camera_to_world
from xmask3d.scan.scan import open_scan

K = KINECT.scaled((480, 640), (240, 320))
COUNT = 8
OPENGL = np.diag([1.0, -1, -1, 1])


def frames(folder: Path, color: str, depth: str) -> list[np.ndarray]:
    return write_frames(folder, BoxRoom(3), COUNT, color=color, depth=depth, pose=None, intrinsics=None, invalid=0)


def nerfstudio(folder: Path, *, stated: bool = True) -> list[np.ndarray]:
    poses = frames(folder, "images/frame_{:05d}.jpg", "depths/frame_{:05d}.png")
    listed = []
    for i, pose in enumerate(poses):
        listed.append({"file_path": f"images/frame_{i:05d}.jpg", "transform_matrix": (pose @ OPENGL).tolist()})
        listed[-1] |= {"depth_file_path": f"depths/frame_{i:05d}.png"} if stated else {}
    content = {"fl_x": K.fx, "fl_y": K.fy, "cx": K.cx, "cy": K.cy, "w": 320, "h": 240, "k1": 0.0, "frames": listed}
    (folder / "transforms.json").write_text(json.dumps(content))
    return poses


def nerfstudio_by_names(folder: Path) -> list[np.ndarray]:
    return nerfstudio(folder, stated=False)


def scanner_app(folder: Path) -> list[np.ndarray]:
    poses = frames(folder, "frame_{:05d}.jpg", "depth_{:05d}.png")
    for i, pose in enumerate(poses):
        content = {"intrinsics": [K.fx, 0, K.cx, 0, K.fy, K.cy, 0, 0, 1],
                   "cameraPoseARFrame": (pose @ OPENGL).ravel().tolist()}  # fmt: skip
        (folder / f"frame_{i:05d}.json").write_text(json.dumps(content))
        Image.new("I;16", (320, 240), 2).save(folder / f"conf_{i:05d}.png")
    (folder / "frame_00099.json").write_text(json.dumps(content))  # the app keeps few pictures
    Image.new("RGB", (32, 24)).save(folder / "thumb_00000.jpg")
    return poses


def polycam(folder: Path) -> list[np.ndarray]:
    poses = frames(folder / "keyframes", "images/{}.jpg", "depth/{}.png")
    (folder / "keyframes/cameras").mkdir()
    for i, pose in enumerate(poses):
        camera = {f"t_{r}{c}": (pose @ OPENGL)[r, c] for r in range(3) for c in range(4)}
        camera |= {"fx": K.fx, "fy": K.fy, "cx": K.cx, "cy": K.cy}
        (folder / f"keyframes/cameras/{i}.json").write_text(json.dumps(camera))
        (folder / f"keyframes/cameras/._{i}.json").write_bytes(b"\0\5\x16\7")
    return poses


def _turn_and_place(pose: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    inverse = np.linalg.inv(pose)
    return Rotation.from_matrix(inverse[:3, :3]).as_quat()[[3, 0, 1, 2]], inverse[:3, 3]


def colmap_text(folder: Path) -> list[np.ndarray]:
    poses, model = frames(folder, "images/{:04d}.jpg", "depth/{:04d}.png"), folder / "sparse/0"
    model.mkdir(parents=True)
    (model / "cameras.txt").write_text(f"# cameras\n1 PINHOLE 320 240 {K.fx} {K.fy} {K.cx} {K.cy}\n")
    lines = ["# pictures"]
    for i, pose in enumerate(poses):
        values = " ".join(repr(float(value)) for part in _turn_and_place(pose) for value in part)
        lines += [f"{i + 1} {values} 1 {i:04d}.jpg", "" if i % 2 else "1.5 2.5 -1 3.5 4.5 -1 5.5 6.5 -1 7.5 8.5 9"]
    (model / "images.txt").write_text("\n".join(lines) + "\n")
    return poses


def colmap_binary(folder: Path) -> list[np.ndarray]:
    """With the depth maps of COLMAP itself, in metres."""
    poses, model = frames(folder, "images/{:04d}.jpg", "depth/{:04d}.png"), folder / "sparse"
    model.mkdir()
    number = list(MODELS).index("OPENCV")
    camera = struct.pack("<IiQQ8d", 7, number, 320, 240, K.fx, K.fy, K.cx, K.cy, 0, 0, 0, 0)
    (model / "cameras.bin").write_bytes(struct.pack("<Q", 1) + camera)
    data = struct.pack("<Q", COUNT)
    (folder / "stereo/depth_maps").mkdir(parents=True)
    for i, pose in enumerate(poses):
        turn, place = _turn_and_place(pose)
        data += struct.pack("<I7dI", i, *turn, *place, 7) + f"{i:04d}.jpg".encode() + b"\0"
        data += struct.pack("<Q", 1) + bytes(24)
        path = folder / f"depth/{i:04d}.png"
        metres = (np.asarray(Image.open(path)) / 1000).astype("<f4")
        (folder / f"stereo/depth_maps/{i:04d}.jpg.geometric.bin").write_bytes(b"320&240&1&" + metres.tobytes())
        path.unlink()
    (model / "images.bin").write_bytes(data)
    return poses


@pytest.mark.parametrize(
    ("write", "unit"),
    [(nerfstudio, 1000), (nerfstudio_by_names, 1000), (scanner_app, 1000), (polycam, 1000), (colmap_text, 1000),
     (colmap_binary, 1)],
)  # fmt: skip
def test_exports_are_read_as_they_state(write: Callable[[Path], list[np.ndarray]], unit: float, tmp_path: Path) -> None:
    poses = write(tmp_path)
    recording = find_recording(tmp_path)
    np.testing.assert_allclose(camera_to_world(recording.poses, recording.conventions[0]), poses, atol=1e-6)
    for matrices in (recording.color_matrices, recording.depth_matrices):
        assert len(matrices) == 1
        np.testing.assert_allclose(matrices[0][1], [[K.fx, 0, K.cx], [0, K.fy, K.cy], [0, 0, 1]])
    assert recording.units[0] == unit and recording.up is None
    assert 1 < np.median(recording.load_depth(0)) / unit < 5
    assert recording.notes == (
        ["1 listed frames have no colour or no depth and are left out"] if write is scanner_app else []
    )


@pytest.mark.parametrize("write", [nerfstudio, colmap_text])
def test_pictures_without_depth_say_so(write: Callable[[Path], list[np.ndarray]], tmp_path: Path) -> None:
    write(tmp_path)
    for path in [*tmp_path.glob("depth*/*.png")]:
        path.unlink()
    with pytest.raises(UserError, match=r"without depth maps|there is no depth"):
        find_recording(tmp_path)


def test_the_cloud_of_a_dense_colmap_folder(tmp_path: Path) -> None:
    from xmask3d.visualize.cloud import write_ply

    colmap_text(tmp_path)
    for path in (tmp_path / "depth").iterdir():
        path.unlink()
    (tmp_path / "dense").mkdir()
    room = BoxRoom(3)
    write_ply(tmp_path / "dense/fused.ply", room.points, np.zeros((len(room.points), 3), np.uint8))
    scan = open_scan(tmp_path)
    assert scan.kind == "a COLMAP model" and len(scan.points) == len(room.points)
    assert any("rendered from the points of fused.ply" in line for line in scan.lines)


def test_damaged_exports_are_named(tmp_path: Path) -> None:
    colmap_binary(tmp_path / "colmap")
    for name in ("images.bin", "cameras.bin"):
        path = tmp_path / "colmap/sparse" / name
        whole = path.read_bytes()
        for size in (4, 20, len(whole) - 30):
            path.write_bytes(whole[:size])
            with pytest.raises(UserError, match=rf"{name}: damaged, or no COLMAP model"):
                find_recording(tmp_path / "colmap")
        path.write_bytes(whole)
        if name == "cameras.bin":
            path.write_bytes(whole[:12] + b"\xff" * 4 + whole[16:])  # the model -1
        else:
            place = whole.index(b"\0", 8 + 64) + 1
            path.write_bytes(whole[:place] + b"\xff" * 7 + b"\x0f" + whole[place + 8 :])  # 2^60 points of a picture
        with pytest.raises(UserError, match=r"colmap.*damaged, or no"):
            find_recording(tmp_path / "colmap")
        path.write_bytes(whole)
    nerfstudio(tmp_path / "nerf")
    path = tmp_path / "nerf/transforms.json"
    whole = json.loads(path.read_text())
    long = [{**whole["frames"][0], "file_path": "x" * 5000}]
    for change in (
        {"frames": []}, {"frames": [5]}, {"fl_x": None}, {"frames": [{"file_path": "a"}]}, {"w": "wide"}, {"w": 0},
        {"w": float("inf")}, {"fl_x": -100}, {"cx": float("nan")}, {"k1": float("nan")}, {"frames": long},
        {"camera_model": "EQUIRECTANGULAR"},
    ):  # fmt: skip
        path.write_text(json.dumps(whole | change))
        with pytest.raises(UserError, match=r"nerf(/transforms\.json)?: "):
            find_recording(tmp_path / "nerf")
    path.write_text(json.dumps(whole | {"k1": -0.2, "depth_unit_scale_factor": 0.00025}))
    recording = find_recording(tmp_path / "nerf")
    assert recording.units[0] == 4000 and any("distortion is undone" in n for n in recording.notes)
    again = {**whole["frames"][0], "transform_matrix": np.eye(4).tolist()}
    path.write_text(json.dumps(whole | {"frames": [*whole["frames"], again]}))
    repeated = find_recording(tmp_path / "nerf")
    np.testing.assert_array_equal(repeated.poses, recording.poses)
    assert "warning: 1 frames are listed again; the first of each is used" in repeated.notes


def test_the_up_axis_of_apps_is_believed_unless_cameras_turned_about_another(tmp_path: Path) -> None:
    poses = polycam(tmp_path)
    assert find_recording(tmp_path).up is None
    for i, pose in enumerate(poses):
        path = tmp_path / f"keyframes/cameras/{i}.json"
        turned = Y_UP @ pose @ OPENGL
        camera = json.loads(path.read_text()) | {f"t_{r}{c}": turned[r, c] for r in range(3) for c in range(4)}
        path.write_text(json.dumps(camera))
    assert find_recording(tmp_path).up == "y"


def test_a_video_instead_of_pictures_is_named(tmp_path: Path) -> None:
    frames(tmp_path, "rgb/{:06d}.jpg", "depth/{:06d}.png")
    for path in (tmp_path / "rgb").iterdir():
        path.unlink()
    (tmp_path / "rgb.mp4").touch()
    with pytest.raises(UserError, match=r"rgb\.mp4: the colour pictures are a video; .* ffmpeg -i rgb\.mp4"):
        find_recording(tmp_path)
