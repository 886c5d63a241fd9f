import warnings
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from tests.scan.test_layouts import write_pictures
from xmask3d.data.files import read_picture
from xmask3d.errors import UserError
from xmask3d.scan import formats
from xmask3d.scan.formats import point_clouds, read_color, read_depth
from xmask3d.scan.frame_files import _raw_type, _size, collect_files
from xmask3d.scan.layouts import find_recording
from xmask3d.scan.scan import open_scan


def test_the_size_of_most_frames_wins(tmp_path: Path) -> None:
    """The first five are odd ones, among a hundred."""
    paths = []
    for index in range(100):
        paths.append(tmp_path / f"{index}.png")
        Image.new("RGB", (16, 12) if index < 5 else (32, 24)).save(paths[-1])
    assert _size(paths, read_color) == (24, 32)


def test_damaged_arrays_are_passed_over(tmp_path: Path) -> None:
    paths = [tmp_path / f"{index}.npy" for index in range(3)]
    paths[0].touch()
    np.save(paths[1], np.ones((4, 5), np.uint16))
    np.save(paths[2], np.ones((4, 5), np.uint16))
    assert _raw_type(paths) == np.uint16
    paths[1].write_bytes(paths[1].read_bytes()[:-20])
    assert _raw_type(paths) == np.uint16
    assert _size(paths, read_depth) == (4, 5)
    with pytest.raises(UserError, match=r"0\.npy"):
        read_depth(paths[0])


@pytest.mark.parametrize("channels", ["R", "Z", "Y", "RGB"])
def test_depth_in_exr_files(channels: str, tmp_path: Path) -> None:
    openexr = pytest.importorskip("OpenEXR")
    depth, path = np.linspace(0.5, 4, 12 * 16, dtype=np.float32).reshape(12, 16), tmp_path / "0.exr"
    depth[0, 0] = np.nan
    header = {"compression": openexr.ZIP_COMPRESSION, "type": openexr.scanlineimage}
    openexr.File(header, {name: depth for name in channels}).write(str(path))
    np.testing.assert_array_equal(read_depth(path), np.nan_to_num(depth))
    for size in (path.stat().st_size // 2, 20, 0):
        path.write_bytes(path.read_bytes()[:size])
        with pytest.raises(UserError, match="depth map"):
            read_depth(path)


def test_depth_in_npz_files(tmp_path: Path) -> None:
    depth, path = np.linspace(0.5, 4, 12, dtype=np.float32).reshape(3, 4), tmp_path / "0.npz"
    np.savez_compressed(path, depth)
    np.testing.assert_array_equal(read_depth(path), depth)
    np.savez_compressed(path, confidence=np.ones(3), depth=depth)
    np.testing.assert_array_equal(read_depth(path), depth)
    assert _raw_type([path]) == np.float32
    for content in ({"a": depth, "b": depth}, {"depth": np.array([{}])}, {}):
        np.savez(path, **content)
        with pytest.raises(UserError, match=r"0\.npz: "):
            read_depth(path)
    path.write_bytes(b"PK\x03\x04")
    with pytest.raises(UserError, match=r"0\.npz: "):
        read_depth(path)


@pytest.mark.parametrize("depth", [np.ones((0, 5), np.uint16), np.ones((4, 5), bool)])
def test_arrays_that_are_no_depth(tmp_path: Path, depth: np.ndarray) -> None:
    np.save(tmp_path / "0.npy", depth)
    with pytest.raises(UserError, match=r"0\.npy: holds no depth"):
        read_depth(tmp_path / "0.npy")


def test_gray_of_16_bits_is_not_clipped_to_white(tmp_path: Path) -> None:
    gray = np.arange(0, 65536, 4096).reshape(4, 4)
    for name, values in (("0.png", gray.astype(np.uint16)), ("1.tiff", gray.astype(np.int32))):
        Image.fromarray(values).save(tmp_path / name)
        read = read_color(tmp_path / name)
        assert read.dtype == np.uint8 and (read == (gray // 256)[..., None]).all() and read.shape == (4, 4, 3)
        np.testing.assert_array_equal(read_picture(tmp_path / name, "RGB"), read)
    Image.fromarray(np.ones((4, 4), np.float32)).save(tmp_path / "2.tiff")
    with pytest.raises(UserError, match=r"2\.tiff: .*no colours"):
        read_color(tmp_path / "2.tiff")


def test_an_array_that_unpacks_to_more_than_the_limit(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(formats, "LARGEST_ARRAYS", 1 << 20)
    np.savez_compressed(tmp_path / "0.npz", np.zeros((512, 512)))
    with pytest.raises(UserError, match="claims more than 1 MB"):
        read_depth(tmp_path / "0.npz")


@pytest.mark.parametrize(
    ("names", "depth"),
    [
        (("color_to_depth/{}.png", "depth/{}.png"), "depth"),
        (("color/{}.png", "depth_to_color/{}.png"), "depth_to_color"),
    ],
)
def test_pictures_moved_to_another_camera_hold_what_they_held(
    tmp_path: Path, names: tuple[str, str], depth: str
) -> None:
    write_pictures(tmp_path, range(3), *names)
    files = collect_files(tmp_path)
    assert len(files.color) == len(files.depth) == 3 and files.depth["0"].parent.name == depth


def test_depth_in_jpeg_files_is_refused_with_the_reason(tmp_path: Path) -> None:
    for name in ("color", "depth"):
        (tmp_path / name).mkdir()
    for x in range(2):
        Image.new("RGB", (8, 6)).save(tmp_path / f"color/{x}.jpg")
        Image.new("L", (8, 6)).save(tmp_path / f"depth/{x}.jpg")
    with pytest.raises(UserError, match=r"depth: depth pictures are \.jpg files, .* export depth as 16-bit PNG"):
        find_recording(tmp_path)


def test_hidden_files_do_not_count(tmp_path: Path) -> None:
    write_pictures(tmp_path, range(3))
    np.savetxt(tmp_path / "traj.txt", [np.eye(4).ravel()] * 3)
    for path in (*tmp_path.glob("*/*.png"), tmp_path / "camera.json", tmp_path / "room.ply", tmp_path / "a.log"):
        path.with_name(f"._{path.name}").write_bytes(b"\0\5\x16\7")
    recording = find_recording(tmp_path)
    assert len(recording) == 3 and recording.notes == []
    assert [p.name for p in point_clouds(tmp_path, {".ply"})] == []
    (tmp_path / "._scene.sens").write_bytes(b"\0")
    (tmp_path / "__MACOSX").mkdir()
    write_pictures(tmp_path / "__MACOSX", range(3))
    assert open_scan(tmp_path).frame_count == 3


def test_one_frame_without_a_pose(tmp_path: Path) -> None:
    write_pictures(tmp_path, range(1))
    (tmp_path / "camera.json").write_text(
        '\ufeff{"width": 8, "height": 6, "fx": 8, "fy": -8, "cx": 3.5, "cy": 2.5, "depth_scale": 9.999999747e-05}',
        encoding="utf-8",
    )
    recording = find_recording(tmp_path)
    np.testing.assert_array_equal(recording.poses, [np.eye(4)])
    assert recording.units[0] == 10000 and recording.kind == "one colour and depth frame"
    np.testing.assert_array_equal(recording.color_matrices[0][1], [[8, 0, 3.5], [0, 8, 2.5], [0, 0, 1]])


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("camera.json", '{"fx": NaN, "fy": 8, "cx": 3.5, "cy": 2.5}'),
        ("camera.json", '{"fx": 1e308, "fy": 8, "cx": 3.5, "cy": 2.5}'),
        ("camera.json", '{"fx": 8, "fy": 8, "cx": 3.5, "cy": 2.5, "width": -8, "height": 6}'),
        ("camera.json", '{"fx": 8, "fy": 8, "cx": 3.5, "cy": 2.5, "width": 1e30, "height": 6}'),
        ("camera.json", '{"fx": [[8]], "fy": 8, "cx": 3.5, "cy": null}'),
        ("camera.txt", "nan nan 8 8 3.5 2.5"),
        ("camera.txt", "8 4 3.5 0 8 2.5 0 0 1"),
        ("camera.txt", "8 0 3.5 0 8 2.5 0 0 0"),
        ("camera.yaml", "camera_matrix:\n  data: [ 0., 0., 0., 0., 0., 0., 0., 0., 0. ]\nfx: 0\n"),
        ("_info.txt", "fx_depth = nan\nfy_depth = 8\nmx_depth = 3.5\nmy_depth = 2.5\n"),
        ("_info.txt", "fx_color = 8\nfy_color = 0\nmx_color = 3.5\nmy_color = 2.5\n"),
        ("_info.txt", f"m_calibrationColorIntrinsic = {'0 ' * 16}\n"),
    ],
)
def test_intrinsics_that_are_not_understood_are_named(tmp_path: Path, name: str, content: str) -> None:
    write_pictures(tmp_path, range(1))
    (tmp_path / name).write_text(content)
    recording = find_recording(tmp_path)
    assert all(matrix[0, 0] == matrix[1, 1] > 0 for _, matrix in recording.color_matrices)
    (note,) = (note for note in recording.notes if name in note)
    assert note.startswith("warning: not used: ") and note.endswith("; correct it or give --intrinsics FX FY CX CY")


@pytest.mark.parametrize("file", ["calib/{}.yaml", "lowres_wide_intrinsics/{}.pincam"])
def test_intrinsics_in_one_file_a_frame(tmp_path: Path, file: str) -> None:
    write_pictures(tmp_path, range(3))
    np.savetxt(tmp_path / "traj.txt", [np.eye(4).ravel()] * 3)
    for x in range(3):
        path = tmp_path / file.format(x)
        path.parent.mkdir(exist_ok=True)
        matrix = f"   rows: 3\n   cols: 3\n   data: [ {8 + x}., 0., 3.5, 0., 9., 2.5, 0., 0., 1. ]\n"
        text = f"%YAML:1.0\n---\nimage_width: 8\nimage_height: 6\ncamera_matrix:\n{matrix}"
        path.write_text(text if path.suffix == ".yaml" else f"8 6 {8 + x} 9 3.5 2.5")
    recording = find_recording(tmp_path)
    for words, matrices in (recording.color_matrices[0], recording.depth_matrices[0]):
        assert words == f"{path.parent.name}, one file a frame"
        np.testing.assert_array_equal(matrices[:, 0, 0], [8, 9, 10])
        np.testing.assert_array_equal(matrices[1], [[9, 0, 3.5], [0, 9, 2.5], [0, 0, 1]])


def test_cameras_in_yaml_of_slam_programs(tmp_path: Path) -> None:
    (tmp_path / "camera.yaml").write_text("%YAML:1.0\nCamera.fx: 517.3\nCamera.fy: 516.5\nCamera.cx: 318.6\n"
                                          "Camera.cy: 2.553e2\nCamera.width: 640\nCamera.height: 480\n")  # fmt: skip
    matrix, size = formats.read_intrinsics(tmp_path / "camera.yaml")
    np.testing.assert_array_equal(matrix, [[517.3, 0, 318.6], [0, 516.5, 255.3], [0, 0, 1]])
    assert size == (480, 640)


@pytest.mark.parametrize("order", ["<", ">"])
def test_depth_in_pfm_files(order: str, tmp_path: Path) -> None:
    depth, path = np.linspace(0.5, 4, 12, dtype=np.float32).reshape(3, 4), tmp_path / "0.pfm"
    depth[0, 0] = np.nan
    rows = depth[::-1].astype(f"{order}f4").tobytes()
    path.write_bytes(b"Pf\n4 3\n" + (b"-1.0\n" if order == "<" else b"1.0\n") + rows)
    np.testing.assert_array_equal(read_depth(path), np.nan_to_num(depth))
    for content in (path.read_bytes()[:-3], b"PF" + path.read_bytes()[2:], b"", b"Pf\n999999 999999\n-1\n"):
        path.write_bytes(content)
        with pytest.raises(UserError, match=r"0\.pfm: damaged, or no PFM"):
            read_depth(path)


def test_depth_in_half_precision_raises_no_warning(tmp_path: Path) -> None:
    np.save(tmp_path / "0.npy", np.full((3, 4), 2.5, np.float16))
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        np.testing.assert_array_equal(read_depth(tmp_path / "0.npy"), np.full((3, 4), 2.5))
