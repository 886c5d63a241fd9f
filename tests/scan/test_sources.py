"""Archives, nested folders, several clouds, and files that hold no scan."""

import json
import shutil
import sys
import zipfile
import zlib
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
from PIL import Image
from scipy.spatial.transform import Rotation

from tests.helpers.scenes import BoxRoom
from tests.scan.recordings import KINECT, write_frames
from xmask3d.errors import UserError
from xmask3d.scan import sources
from xmask3d.scan.recording import camera_to_world
from xmask3d.scan.scan import open_scan
from xmask3d.scan.sources import find_scan, unpack

OPENGL = np.diag([1.0, -1, -1, 1])


@pytest.fixture(scope="module")
def room() -> BoxRoom:
    return BoxRoom(3)


def write_cloud(path: Path, count: int = 300) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    np.savetxt(path, np.random.default_rng(0).uniform(0, 3, (count, 3)))


def pack(folder: Path, archive: Path, inside: str = "") -> None:
    with zipfile.ZipFile(archive, "w") as file:
        for path in sorted(folder.rglob("*")):
            file.write(path, Path(inside, path.relative_to(folder)))
        file.writestr("__MACOSX/._junk.ply", b"\0\5\x16\7")


@pytest.mark.parametrize("inside", ["", "export/2024-01-02"])
def test_a_zip_is_read_as_its_folder(inside: str, room: BoxRoom, tmp_path: Path) -> None:
    write_frames(tmp_path / "kitchen", room, 4)
    pack(tmp_path / "kitchen", tmp_path / "packed.zip", inside)
    plain, packed = open_scan(tmp_path / "kitchen"), open_scan(tmp_path / "packed.zip")
    np.testing.assert_array_equal(packed.points, plain.points)
    assert packed.name == "packed" and packed.fingerprint == plain.fingerprint
    view = packed.read_view("packed", packed.scene.view_names[0])  # the files are there as long as the scan is
    np.testing.assert_array_equal(view.image, plain.read_view("kitchen", plain.scene.view_names[0]).image)


def test_unpacked_files_go_with_the_scan(room: BoxRoom, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    places = []
    monkeypatch.setattr(sources.tempfile, "mkdtemp", lambda prefix: places.append(tmp_path / f"t{len(places)}") or
                        places[-1].mkdir() or str(places[-1]))  # fmt: skip
    write_cloud(tmp_path / "cloud/room.xyz")
    pack(tmp_path / "cloud", tmp_path / "room.zip")
    scan = open_scan(tmp_path / "room.zip")
    assert len(scan.points) == 300 and places[0].is_dir()
    del scan
    assert not places[0].exists()
    (tmp_path / "bad.zip").write_bytes((tmp_path / "room.zip").read_bytes()[:-300])
    with pytest.raises(UserError, match=r"bad\.zip: .*get or export it again"):
        open_scan(tmp_path / "bad.zip")
    (tmp_path / "bad.zip").write_bytes((tmp_path / "room.zip").read_bytes().replace(b"PK\1\2", b"PK\0\0"))
    with pytest.raises(UserError, match=r"bad\.zip: damaged, or not an archive"):
        open_scan(tmp_path / "bad.zip")
    assert not places[1].exists()


@pytest.mark.parametrize("name", [".zip", "._room.zip", "...zip", "my.room.tar.zip"])
def test_archives_of_odd_names_take_nothing_else_along(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "t").mkdir()
    monkeypatch.setattr(sources.tempfile, "mkdtemp", lambda prefix: (tmp_path / "t/x").mkdir() or str(tmp_path / "t/x"))
    write_cloud(tmp_path / "cloud/room.xyz")
    pack(tmp_path / "cloud", tmp_path / name)
    (tmp_path / "t/kept").touch()
    scan = open_scan(tmp_path / name)
    assert scan.name == {".zip": "scan", "._room.zip": "_room", "...zip": "scan"}.get(name, "my.room.tar")
    del scan
    assert [path.name for path in (tmp_path / "t").iterdir()] == ["kept"]


@pytest.mark.parametrize("name", ["../evil.xyz", "/evil.xyz"])
def test_an_archive_cannot_write_elsewhere(name: str, tmp_path: Path) -> None:
    with zipfile.ZipFile(tmp_path / "a.zip", "w") as file:
        file.writestr(name, "1 2 3")
    with pytest.raises(UserError, match="outside its folder"):
        open_scan(tmp_path / "a.zip")


def test_an_archive_that_would_fill_the_disk_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sources, "LARGEST", 1000)
    with zipfile.ZipFile(tmp_path / "a.zip", "w", zipfile.ZIP_DEFLATED) as file:
        file.writestr("a.xyz", "1 2 3\n" * 1000)
    with pytest.raises(UserError, match="would unpack to"):
        unpack(tmp_path / "a.zip")


def test_a_scan_in_folders_below(room: BoxRoom, tmp_path: Path) -> None:
    write_frames(tmp_path / "mine/scans/today/export", room, 4)
    scan = open_scan(tmp_path / "mine")
    assert scan.name == "mine" and scan.frame_count == 4
    assert any(line == "the scan is in scans/today/export" for line in scan.lines)
    assert any("intrinsics: camera-intrinsics.txt" in line for line in scan.lines)
    write_frames(tmp_path / "mine/scans/yesterday/export", room, 4)
    with pytest.raises(UserError, match=r"holds 2 scans \(scans/today.*, scans/yesterday.*\); name one"):
        open_scan(tmp_path / "mine")


def test_clouds_below_do_not_hide_what_is_missing(room: BoxRoom, tmp_path: Path) -> None:
    write_frames(tmp_path, room, 4, pose=None)
    write_cloud(tmp_path / "mesh/room.xyz")
    with pytest.raises(UserError, match="no poses"):
        open_scan(tmp_path)


def test_of_several_clouds(tmp_path: Path) -> None:
    for name in ("room.xyz", "room.asc"):
        write_cloud(tmp_path / name)
    assert any("of room.xyz, room.asc, one scan by their names, room.xyz is used" in line
               for line in open_scan(tmp_path).lines)  # fmt: skip
    write_cloud(tmp_path / "room.2.xyz")
    with pytest.raises(UserError, match=r"3 point clouds .*; name one"):
        open_scan(tmp_path)  # two of one format are two scans
    (tmp_path / "room.2.xyz").unlink()
    write_cloud(tmp_path / "attic.pts")
    with pytest.raises(UserError, match=r"3 point clouds \(attic\.pts, room\.asc, room\.xyz\); name one, as"):
        open_scan(tmp_path)


@pytest.mark.parametrize(
    ("name", "message"),
    [("a.mp4", "a video, which has no depth"), ("a.HEIC", "HEIC"), ("a.usdz", "USD scene"), ("a.jpg", "no depth"),
     ("a.mkv", "Azure Kinect"), ("a.spz", "SuperSplat"), ("a.fls", "E57"), ("a.bag", "ROS"), ("a.rar", "unpack it")],
)  # fmt: skip
@pytest.mark.parametrize("alone", [True, False])
def test_files_without_a_scan_say_the_way_out(name: str, message: str, alone: bool, tmp_path: Path) -> None:
    (tmp_path / name).write_bytes(b"something")
    with pytest.raises(UserError, match=message if alone or name != "a.jpg" else "1 pictures without depth") as caught:
        open_scan(tmp_path / name if alone else tmp_path)
    assert "\n" not in str(caught.value)


def r3d(folder: Path, room: BoxRoom) -> list[np.ndarray]:
    poses = write_frames(folder, room, 5, color="rgbd/{}.jpg", depth="rgbd/{}.npy", pose=None, intrinsics=None)
    k = KINECT.scaled((480, 640), (240, 320))
    rows = [[*Rotation.from_matrix((pose @ OPENGL)[:3, :3]).as_quat(), *pose[:3, 3]] for pose in poses]
    content = {"w": 320, "h": 240, "dw": 320, "dh": 240, "fps": 30, "poses": rows,
               "K": [k.fx, 0, 0, 0, k.fy, 0, k.cx, k.cy, 1],
               "perFrameIntrinsicCoeffs": [[k.fx, k.fy, k.cx, k.cy]] * 5}  # fmt: skip
    (folder / "metadata").write_text(json.dumps(content))
    for path in folder.glob("rgbd/*.npy"):
        path.with_suffix(".depth").write_bytes(zlib.compress(np.load(path).astype("<f4").tobytes()))
        path.with_suffix(".conf").write_bytes(b"")
        path.unlink()
    return poses


def test_record3d_in_one_file(room: BoxRoom, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    poses = r3d(tmp_path / "raw", room)
    shutil.make_archive(str(tmp_path / "flat"), "zip", tmp_path / "raw")
    (tmp_path / "flat.zip").rename(tmp_path / "flat.r3d")
    monkeypatch.setitem(sys.modules, "lzfse", None)
    with pytest.raises(UserError, match=r"r3d.*xmask3d\[formats\]"):
        open_scan(tmp_path / "flat.r3d")
    monkeypatch.setitem(sys.modules, "lzfse", SimpleNamespace(decompress=zlib.decompress))  # stands for Apple's packing
    scan = open_scan(tmp_path / "flat.r3d")
    assert scan.kind == "a Record3D export" and scan.frame_count == 5 and scan.name == "flat"
    recording = find_scan(tmp_path / "raw", [])
    np.testing.assert_allclose(camera_to_world(recording.poses, recording.conventions[0]), poses, atol=1e-6)
    assert recording.color_matrices[0][1].shape == (5, 3, 3) and recording.units[0] == 1
    (tmp_path / "raw/rgbd/0.depth").write_bytes(zlib.compress(b"1234"))
    with pytest.raises(UserError, match=r"0\.depth: damaged"):
        recording.load_depth(0)


def test_archives_in_archives_end(tmp_path: Path) -> None:
    write_cloud(tmp_path / "room/room.xyz")
    for name, inside in (("a", "room"), ("b", "a"), ("c", "b")):
        shutil.make_archive(str(tmp_path / name / name), "zip", tmp_path / inside)
    assert len(open_scan(tmp_path / "b").points) == 300
    with pytest.raises(UserError, match="an archive in an archive"):
        open_scan(tmp_path / "c")


def test_pictures_in_a_zip_are_told(tmp_path: Path) -> None:
    Image.new("RGB", (8, 8)).save(tmp_path / "a.png")
    with zipfile.ZipFile(tmp_path / "a.zip", "w") as file:
        file.write(tmp_path / "a.png", "trip/a.png")
    with pytest.raises(UserError, match="1 pictures without depth"):
        open_scan(tmp_path / "a.zip")


def test_refusals_name_the_archive(tmp_path: Path) -> None:
    write_cloud(tmp_path / "two" / "a.xyz")
    write_cloud(tmp_path / "two" / "b.xyz")
    pack(tmp_path / "two", tmp_path / "two.zip")
    with pytest.raises(UserError) as refused:
        open_scan(tmp_path / "two.zip")
    assert str(refused.value).startswith(f"{tmp_path / 'two.zip'}: 2 point clouds (a.xyz, b.xyz); name one, as ")
    assert "xmask3d-scan-" not in str(refused.value)
