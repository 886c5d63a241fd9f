import numpy as np
import pytest

from tests.helpers.command import run_command
from xmask3d.data.prepare.s3dis import prepare_room, read_room
from xmask3d.data.scannet import S3DIS
from xmask3d.errors import UserError
from xmask3d.splits import load_benchmark


def write_s3dis(root):
    rng = np.random.default_rng(0)
    for area in (1, 5):
        folder = root / f"Area_{area}" / "office_1" / "Annotations"
        folder.mkdir(parents=True)
        for name in ("chair_1", "sofa_1", "stairs_1"):
            rows = np.c_[rng.uniform(0, 4, (30, 3)).round(3), rng.integers(0, 256, (30, 3))]
            np.savetxt(folder / f"{name}.txt", rows, fmt="%.3f %.3f %.3f %d %d %d")
    return root


def test_s3dis_room(tmp_path):
    root = write_s3dis(tmp_path / "raw")
    folder = root / "Area_5" / "office_1"
    points, colors, labels = read_room(folder)
    expected = np.loadtxt(folder / "Annotations" / "chair_1.txt")
    np.testing.assert_allclose(points[:30], expected[:, :3], atol=1e-6)
    np.testing.assert_allclose((colors[:30] + 1) * 127.5, expected[:, 3:], atol=1e-4)
    assert labels.tolist() == [8] * 30 + [9] * 30 + [12] * 30


def test_s3dis_damaged_line_is_left_out(tmp_path, caplog):
    root = write_s3dis(tmp_path / "raw")
    path = root / "Area_1" / "office_1" / "Annotations" / "chair_1.txt"
    lines = path.read_bytes().splitlines()
    lines[7] = lines[7].replace(b" ", b"\x10", 1)
    path.write_bytes(b"\n".join(lines))
    assert len(read_room(root / "Area_1" / "office_1")[0]) == 89
    assert "chair_1.txt: 1 damaged lines" in caplog.text
    path.write_bytes(b"nothing")
    with pytest.raises(UserError, match="x y z r g b"):
        read_room(root / "Area_1" / "office_1")


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", "chair_1.txt: is empty"),
        (b"\n \n", "chair_1.txt: is empty"),
        (b"1 2 3 4 5 6\n1 2 nan 4 5 6\n", "chair_1.txt: line 2"),
        (b"1 2 3 4 5 6\n1 2 3 4 5\n1 2 3 4 5 6 7\n", "chair_1.txt: line 2"),
    ],
)
def test_s3dis_damaged_objects_are_refused(tmp_path, content, message):
    folder = write_s3dis(tmp_path / "raw") / "Area_1" / "office_1"
    (folder / "Annotations" / "chair_1.txt").write_bytes(content)
    with pytest.raises(UserError, match=message):
        read_room(folder)


def test_s3dis_tool_and_reader(tmp_path, capsys):
    root, out = write_s3dis(tmp_path / "raw"), tmp_path / "out"
    assert run_command("prepare", root, out, "--s3dis", "--workers", 1) == 0
    assert "2 rooms ready" in capsys.readouterr().out
    benchmark = load_benchmark("s3dis/B8N4")
    assert S3DIS.open(out, "train", benchmark).scene_names == ["Area_1_office_1"]
    reader = S3DIS.open(out, "val", benchmark)
    scene = reader.read_scene("Area_5_office_1")
    assert scene.labels.tolist() == [8] * 30 + [9] * 30 + [12] * 30 and scene.view_names == []
    before = (out / "s3dis_3d" / "val" / "Area_5_office_1.pth").stat().st_mtime_ns
    assert prepare_room(root / "Area_5" / "office_1", out).stat().st_mtime_ns == before
    assert run_command("prepare", tmp_path, out, "--s3dis") == 1
