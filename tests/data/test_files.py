import os
import pickle
import zipfile

import numpy as np
import pytest
import torch
from PIL import Image

from xmask3d.data.files import (
    read_intrinsics,
    read_matrix,
    read_picture,
    read_points,
    read_pose,
    read_tuple,
    write_points,
)
from xmask3d.errors import UserError


def arrays():
    rng = np.random.default_rng(0)
    return rng.normal(size=(20, 3)), rng.uniform(-1, 1, (20, 3)).astype(np.float32), rng.integers(0, 20, 20) * 1.0


@pytest.mark.parametrize("protocol", [2, 4, 5])
@pytest.mark.parametrize("zipped", [True, False])
def test_reads_what_torch_saves(tmp_path, protocol, zipped):
    path = tmp_path / "scene.pth"
    torch.save(arrays(), path, pickle_protocol=protocol, _use_new_zipfile_serialization=zipped)
    for read, saved in zip(read_tuple(path), arrays(), strict=True):
        assert read.dtype == saved.dtype
        np.testing.assert_array_equal(read, saved)


def test_points_round_trip(tmp_path):
    points, colors, labels = arrays()
    write_points(tmp_path / "deep" / "a.pth", points, colors, labels)
    read = read_points(tmp_path / "deep" / "a.pth")
    np.testing.assert_array_equal(read[0], points.astype(np.float32))
    np.testing.assert_array_equal(read[1], colors)
    np.testing.assert_array_equal(read[2], labels)
    assert read[2].dtype == np.int64
    official = torch.load(tmp_path / "deep" / "a.pth", weights_only=False)
    np.testing.assert_array_equal(official[2], labels)


def test_scalar_colors_mean_none(tmp_path):
    points, _, labels = arrays()
    torch.save((points, 0, labels), tmp_path / "a.pth")
    assert not read_points(tmp_path / "a.pth")[1].any()


class Evil:
    def __init__(self, marker):
        self.marker = marker

    def __reduce__(self):
        return os.mkdir, (str(self.marker),)


@pytest.mark.parametrize("zipped", [True, False])
def test_a_hostile_file_runs_nothing(tmp_path, zipped):
    path, marker = tmp_path / "scene.pth", tmp_path / "broken-in"
    torch.save((np.zeros(3), Evil(marker)), path, _use_new_zipfile_serialization=zipped)
    with pytest.raises(UserError, match=r"scene\.pth.*not allowed"):
        read_tuple(path)
    assert not marker.exists()


def test_only_the_codec_of_bytes_is_allowed(tmp_path):
    code = b"c_codecs\nencode\n(Vab\nVrot13\ntR."
    with zipfile.ZipFile(tmp_path / "a.pth", "w") as archive:
        archive.writestr("a/data.pkl", code)
    with pytest.raises(UserError, match="rot13"):
        read_tuple(tmp_path / "a.pth")
    assert pickle.loads(b"c_codecs\nencode\n(Vab\nVlatin1\ntR.") == b"ab"


@pytest.mark.parametrize("keep", [0, 10, 400, 900])
def test_truncated_scene_file(tmp_path, keep):
    path = tmp_path / "scene.pth"
    write_points(path, *arrays())
    path.write_bytes(path.read_bytes()[:keep])
    with pytest.raises(UserError, match=r"scene\.pth"):
        read_points(path)


@pytest.mark.parametrize(
    ("value", "message"),
    [
        ((np.zeros((4, 2)), np.zeros((4, 2))), "expected n x 3"),
        ((np.zeros((4, 3)), np.zeros((4, 3)), np.zeros(5)), "another number"),
        ((np.zeros((4, 3)),), "1 entries"),
        ((np.full((4, 3), np.nan), np.zeros((4, 3)), np.zeros(4)), "NaN"),
        ({"points": np.zeros(3)}, "dict"),
        ((torch.zeros(4, 3), torch.zeros(4, 3)), "not"),
    ],
)
def test_wrong_content(tmp_path, value, message):
    torch.save(value, tmp_path / "scene.pth")
    with pytest.raises(UserError, match=message):
        read_points(tmp_path / "scene.pth")


def test_missing_files_are_named(tmp_path):
    for read in (read_points, read_picture, read_matrix):
        with pytest.raises(UserError, match="nowhere"):
            read(tmp_path / "nowhere.txt")


@pytest.mark.parametrize("dtype", [np.uint8, np.uint16])
def test_pictures_keep_their_integers(tmp_path, dtype):
    values = (np.arange(12).reshape(3, 4) * (5000 if dtype == np.uint16 else 20)).astype(dtype)
    Image.fromarray(values).save(tmp_path / "a.png")
    read = read_picture(tmp_path / "a.png")
    assert read.dtype == dtype
    np.testing.assert_array_equal(read, values)


def test_truncated_picture(tmp_path):
    path = tmp_path / "a.jpg"
    Image.fromarray(np.random.default_rng(0).integers(0, 255, (60, 80, 3), dtype=np.uint8)).save(path)
    path.write_bytes(path.read_bytes()[:1500])
    with pytest.raises(UserError, match=r"a\.jpg"):
        read_picture(path, "RGB")


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("1 2 3", "3 numbers"),
        ("a b", "not a matrix"),
        (" ".join(["-inf"] * 16), "NaN or infinity"),
        (" ".join(["nan"] * 16), "NaN or infinity"),
        (" ".join(["0"] * 16), "not a 4 x 4 camera pose"),
        ("1 0 0 0 1 0 0 0 1", "not a 4 x 4 camera pose"),
    ],
)
def test_bad_poses(tmp_path, text, message):
    (tmp_path / "pose.txt").write_text(text)
    with pytest.raises(UserError, match=message):
        read_pose(tmp_path / "pose.txt")


def test_intrinsics_of_either_file(tmp_path):
    assert read_intrinsics(tmp_path, (240, 320), (240, 320)) is None
    (tmp_path / "intrinsic").mkdir()
    np.savetxt(tmp_path / "intrinsic" / "intrinsic_depth.txt", np.diag([570.0, 572, 1, 1]) + 0)
    with pytest.raises(UserError, match="principal point"):
        read_intrinsics(tmp_path, (240, 320), (240, 320))
    matrix = np.eye(4)
    matrix[0, 0], matrix[1, 1], matrix[0, 2], matrix[1, 2] = 570, 572, 319.5, 239.5
    np.savetxt(tmp_path / "intrinsic" / "intrinsic_depth.txt", matrix)
    camera = read_intrinsics(tmp_path, (240, 320), (240, 320))
    assert (camera.fx, camera.fy, camera.cx, camera.cy) == (285, 286, 159.5, 119.5)
    np.savetxt(tmp_path / "intrinsics.txt", np.array([[280, 0, 150], [0, 281, 110], [0, 0, 1.0]]))
    camera = read_intrinsics(tmp_path, (240, 320), (240, 320))
    assert (camera.fx, camera.fy, camera.cx, camera.cy) == (280, 281, 150, 110)


def test_a_scene_read_again_is_the_same_and_damage_since_then_is_noticed(tmp_path):
    path = tmp_path / "scene.pth"
    points = np.random.default_rng(0).normal(size=(500, 3)).astype(np.float32)
    write_points(path, points, points / 10, np.arange(500))
    for _ in range(2):  # the second time without the archive's checksum
        read = read_points(path)
        np.testing.assert_array_equal(read[0], points)
        np.testing.assert_array_equal(read[2], np.arange(500))
    content = bytearray(path.read_bytes())
    middle = content.index(points.tobytes()) + 100
    content[middle] ^= 0xFF
    path.write_bytes(content)
    os.utime(path, ns=(1, 1))
    with pytest.raises(UserError, match="damaged"):
        read_points(path)
