"""Folders of predictions: three formats, points matched by index or by place, and files that cannot be read."""

import io
import struct
import zipfile
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from xmask3d.data.predictions import PredictionFolder, match_points, pair_scenes
from xmask3d.data.scene import Scene
from xmask3d.errors import UserError
from xmask3d.metrics.predictions import score_predictions
from xmask3d.splits import load_benchmark
from xmask3d.visualize.cloud import write_ply

BENCHMARK = load_benchmark("scannet20/B15N4")
POINTS = np.random.default_rng(0).random((600, 3)).astype(np.float32) * 4
LABELS = np.arange(600) * 19 // 600
NYU40 = np.array(BENCHMARK.file_ids_2d)[LABELS]


def read(folder: Path, **options: Any) -> Any:
    return PredictionFolder(folder, BENCHMARK, **options).read("scene1", POINTS)


def write_index(folder: Path, lines: str, masks: int = 0) -> None:
    (folder / "masks").mkdir(parents=True, exist_ok=True)
    for k in range(masks):
        text = "\n".join("1" if label == k + 2 else "0" for label in LABELS)
        (folder / "masks" / f"{k}.txt").write_text(text + "\n" * (k % 2))
    (folder / "scene1.txt").write_text(lines)


def test_labels_of_three_formats(tmp_path: Path) -> None:
    for name in ("text", "npz", "ply"):
        (tmp_path / name).mkdir()
    (tmp_path / "text" / "scene1.txt").write_text("\n".join(map(str, NYU40)) + "\n")
    np.savez(tmp_path / "npz" / "scene1_vh_clean_2.npz", labels=LABELS)
    write_ply(tmp_path / "ply" / "scene1.ply", POINTS, np.zeros((600, 3), np.uint8), LABELS)
    for name in ("text", "npz", "ply"):
        predicted = read(tmp_path / name)
        assert (predicted.labels == LABELS).all() and predicted.matching == "index" and predicted.masks is None


def test_ids_of_other_kinds_and_of_no_class(tmp_path: Path) -> None:
    ids = np.where(LABELS == 3, 39, NYU40)  # otherfurniture is not in the list
    (tmp_path / "scene1.txt").write_text("\n".join(f"{i}.0" for i in ids))
    folder = PredictionFolder(tmp_path, BENCHMARK)
    labels = folder.read("scene1", POINTS).labels
    assert (labels == np.where(LABELS == 3, -1, LABELS)).all() and folder.without_class == (LABELS == 3).sum()
    assert list(folder.digests) == ["scene1.txt"] and len(folder.digests["scene1.txt"]) == 64
    (tmp_path / "scene1.txt").write_text("\n".join(map(str, LABELS)))
    assert (read(tmp_path, ids="points").labels == LABELS).all()
    (tmp_path / "scene1.txt").write_text("255\n" * 600)
    with pytest.raises(UserError, match=r"scene1\.txt: none of its ids is a class of scannet20/B15N4 as 'scannet' ids"):
        read(tmp_path)


def test_points_of_another_order_or_number_are_matched_by_place(tmp_path: Path) -> None:
    order = np.random.default_rng(1).permutation(600)
    np.savez(tmp_path / "scene1.npz", labels=LABELS[order], points=POINTS[order])
    predicted = read(tmp_path)
    assert (predicted.labels == LABELS).all() and predicted.matching == "nearest point"
    doubled = np.repeat(POINTS, 2, 0) + 0.001
    np.savez(tmp_path / "scene1.npz", labels=np.repeat(LABELS, 2), points=doubled)
    assert (read(tmp_path).labels == LABELS).all()
    for points, message in (
        (None, "599 points, but the scene has 600"),
        (POINTS[1:] + 9, "far from those of the scene"),
    ):
        with pytest.raises(UserError, match=message):
            match_points(Path("a.npz"), 599, points, POINTS)


def test_instances_as_text_and_npz(tmp_path: Path) -> None:
    text, arrays = tmp_path / "text", tmp_path / "npz"
    arrays.mkdir()
    write_index(text, "masks/0.txt 3 0.5\n\nmasks/1.txt 4 -1e-3\n", masks=2)
    masks = np.stack([LABELS == 2, LABELS == 3])
    np.savez(arrays / "scene1.npz", masks=masks.astype(np.uint8), classes=[2, 3], confidences=[0.5, -1e-3])
    for folder in (text, arrays):
        predicted = read(folder)
        assert (predicted.masks == masks).all() and predicted.labels is None
        assert predicted.classes.tolist() == [3, 4] and predicted.confidences.tolist() == [0.5, -1e-3]
    (text / "scene1.txt").write_text("")
    assert read(text).masks.shape == (0, 600)


def test_labels_and_instances_in_two_folders(tmp_path: Path) -> None:
    write_index(tmp_path / "instance", "masks/0.txt 3 0.5", masks=1)
    (tmp_path / "semantic").mkdir()
    (tmp_path / "semantic" / "scene1.txt").write_text("\n".join(map(str, NYU40)))
    objects = tmp_path / "objects"
    objects.mkdir()
    (objects / "scene1.txt").write_text("\n".join(map(str, NYU40 * 1000 + 1)))
    reader: Any = SimpleNamespace(read_scene=lambda name: Scene(name, POINTS, POINTS, LABELS))
    folder = PredictionFolder(tmp_path, BENCHMARK)
    results = score_predictions(pair_scenes(reader, folder, ["scene1"], objects), BENCHMARK)
    assert results.values["hiou"] == 1.0 and results.intervals == {}
    # Objects have 31 or 32 points: none is large enough to be judged.
    assert np.isnan(results.values["ap"]) and sorted(folder.digests) == [
        "instance/masks/0.txt", "instance/scene1.txt", "semantic/scene1.txt",
    ]  # fmt: skip


def test_scenes_without_a_file(tmp_path: Path) -> None:
    (tmp_path / "scene1.txt").write_text("1\n")
    (tmp_path / "other.txt").write_text("1\n")
    folder = PredictionFolder(tmp_path, BENCHMARK)
    assert folder.check_scenes(["scene1"]) == ["other"]
    with pytest.raises(UserError, match=r"no prediction for 1 of 2 scenes, such as scene2"):
        folder.check_scenes(["scene1", "scene2"])
    with pytest.raises(UserError, match="no such folder"):
        PredictionFolder(tmp_path / "no", BENCHMARK)


@pytest.mark.parametrize(
    "lines, message",
    [
        ("masks/0.txt 3", r"line 1: expected the path of a mask"),
        ("masks/0.txt 3 0.5\nmasks/0.txt three 0.5", r"line 2: expected the path of a mask"),
        ("masks/0.txt 3 nan", r"line 1: expected the path of a mask"),
        ("../../secret.txt 3 0.5", r"line 1: \.\./\.\./secret\.txt lies outside"),
        ("/etc/hostname 3 0.5", r"line 1: /etc/hostname lies outside"),
        ("a\0.txt 3 0.5", "line 1: expected the path of a mask"),
        (f"a.txt {10**30} 0.5", "line 1: expected the path of a mask"),
        ("masks/7.txt 3 0.5", r"line 1: masks/7\.txt is missing"),
        ("masks/bad.txt 3 0.5", r"bad\.txt, line 2: not one whole number a line"),
    ],
)
def test_indices_that_cannot_be_read(tmp_path: Path, lines: str, message: str) -> None:
    write_index(tmp_path, lines, masks=1)
    (tmp_path / "masks" / "bad.txt").write_text("0\n1 1\n")
    with pytest.raises(UserError, match=message):
        read(tmp_path)


@pytest.mark.parametrize(
    "text, line", [("1\n2\nwall\n", 3), ("1\n\n2 3\n4\n", 3), ("1\n2.5\n", 2), ("1\nnan\n", 2), ("4\n\x00\xff", 2)]
)
def test_labels_that_are_no_numbers(tmp_path: Path, text: str, line: int) -> None:
    (tmp_path / "scene1.txt").write_bytes(text.encode("latin-1"))
    with pytest.raises(UserError, match=rf"scene1\.txt, line {line}: not one whole number a line"):
        read(tmp_path)


def promise(path: Path, shape: str, payload: bytes = b"\0" * 8) -> None:
    """An npz whose array header promises a shape that its bytes do not hold."""
    header = f"{{'descr': '<i8', 'fortran_order': False, 'shape': {shape}, }}".encode()
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("labels.npy", b"\x93NUMPY\x01\x00" + struct.pack("<H", len(header)) + header + payload)


def test_arrays_that_promise_too_much_or_hold_objects(tmp_path: Path) -> None:
    path = tmp_path / "scene1.npz"
    promise(path, "(100000000000,)")
    with pytest.raises(UserError, match=r"8 bytes for an array of \(100000000000,\) int64"):
        read(tmp_path)
    np.savez(path, labels=np.array([{}, []], object))
    with pytest.raises(UserError, match="no plain number"):
        read(tmp_path)
    path.write_bytes(b"PK\x03\x04 no")
    with pytest.raises(UserError, match="damaged, or not arrays of numbers"):
        read(tmp_path)
    for arrays, message in (
        ({"labels": np.array(["wall", "floor"])}, "no plain number"),
        ({"labels": np.zeros((2, 2), int)}, "labels must be a list of whole numbers"),
        ({"masks": np.ones((2, 600))}, "masks need M x n values"),
        ({"masks": np.ones((2, 600)), "classes": [1, 2], "confidences": [1]}, "need as many classes"),
        ({"masks": np.ones((1, 600)), "classes": [1], "confidences": [np.inf]}, "finite confidences"),
        ({"points": POINTS}, "holds neither labels nor masks"),
        ({"labels": LABELS, "points": POINTS[:9]}, r"its points are \(9, 3\), expected 600 x 3"),
    ):
        np.savez(path, **arrays)  # type: ignore[arg-type]
        with pytest.raises(UserError, match=message):
            read(tmp_path)


def test_plys_without_labels_or_cut_off(tmp_path: Path) -> None:
    path = tmp_path / "scene1.ply"
    write_ply(path, POINTS, np.zeros((600, 3), np.uint8))
    with pytest.raises(UserError, match="its vertices need the properties x, y, z and label"):
        read(tmp_path)
    path.write_bytes(io.BytesIO(path.read_bytes()).read(300))
    with pytest.raises(UserError, match="damaged, or not a PLY"):
        read(tmp_path)
