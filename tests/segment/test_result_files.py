"""What is written of a result, and what is left of the one before."""

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from xmask3d.geometry.ply import read_elements
from xmask3d.segment import result_files as outputs
from xmask3d.segment.result import SegmentationResult
from xmask3d.segment.result_files import write_result
from xmask3d.segment.saved_features import PointFeatures

ROTATION = np.array([[1.0, 0, 0], [0, 0, -1], [0, 1, 0]])


def result_of(phrases: list[str], **changes: object) -> SegmentationResult:
    """A result of 60 points in three places."""
    points = np.random.default_rng(0).random((60, 3)).astype(np.float32)
    row, grey = np.arange(60, dtype=np.int32) % 3, np.full((60, 3), 128, np.uint8)
    nothing = np.zeros((3, 4), np.float16)
    features = PointFeatures(points, grey, row, nothing, nothing, nothing[:, 0], row[:3])
    similarity = np.random.default_rng(1).random((3, len(phrases))).astype(np.float32)
    made = SegmentationResult("room", points, grey, phrases, row % len(phrases), np.ones(60, np.float32), phrases,
                              similarity, [[] for _ in phrases], features)  # fmt: skip
    return replace(made, **changes)


def test_map_coordinates_survive(tmp_path: Path) -> None:
    origin = np.array([455_123.0, 5_712_456.0, 80.0])
    result = result_of(["bed", "floor"], origin=origin, objects=np.zeros(60, np.int64), object_names=["bed"])
    write_result(result, tmp_path)
    for name in ("labels.ply", "heat_bed.ply", "objects.ply"):
        vertex = read_elements(tmp_path / name)["vertex"]
        np.testing.assert_array_equal(np.stack([vertex[a] for a in "xyz"], 1), result.points + origin)


def test_nothing_of_the_earlier_result_is_left_and_all_else_is(tmp_path: Path) -> None:
    objects = {"objects": np.zeros(60, np.int64), "object_names": ["bed"]}
    (tmp_path / "notes.txt").write_text("mine")
    write_result(result_of(["bed", "floor"], **objects), tmp_path)
    assert (tmp_path / "heat_bed.ply").is_file() and (tmp_path / "objects.csv").is_file()
    files = write_result(result_of(["floor", "red chair"]), tmp_path)
    present = {path.name for path in tmp_path.iterdir()}
    assert present == {file.name for file in files} | {"notes.txt"}
    assert "heat_red_chair.ply" in present and "heat_bed.ply" not in present
    said = json.loads((tmp_path / "summary.json").read_text())
    assert said["files"] == [file.name for file in files] and said["names"] == ["floor", "red chair"]


@pytest.mark.parametrize("files", [["../kept.txt", "sub", 5], "kept.txt", None])
def test_only_files_of_the_folder_are_removed(tmp_path: Path, files: object) -> None:
    out = tmp_path / "out"
    (out / "sub").mkdir(parents=True)
    (tmp_path / "kept.txt").touch()
    (out / "kept.txt").touch()
    (out / "summary.json").write_text(json.dumps({"files": files}))
    write_result(result_of(["bed"]), out)
    assert (tmp_path / "kept.txt").is_file() and (out / "kept.txt").is_file() and (out / "sub").is_dir()


def test_files_are_replaced_only_when_all_are_written(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write_result(result_of(["bed"]), tmp_path)
    before = {path.name: path.read_bytes() for path in tmp_path.iterdir()}

    def stopped(*_: object, **__: object) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(outputs, "write_page", stopped)
        with pytest.raises(KeyboardInterrupt):
            write_result(result_of(["floor"]), tmp_path)
    assert {path.name: path.read_bytes() for path in tmp_path.iterdir()} == before
    (tmp_path / outputs.PARTIAL).mkdir()  # of a process that was killed
    write_result(result_of(["floor"]), tmp_path)
    assert not (tmp_path / outputs.PARTIAL).exists() and (tmp_path / "heat_floor.ply").is_file()


def test_heat_maps_are_of_points_only_one_at_a_time(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    result, shown = result_of(["bed", "floor"]), []
    monkeypatch.setattr(outputs, "write_page", lambda *args, **_: shown.extend(args[5]) or Path(args[0]).touch())
    write_result(result, tmp_path)
    assert [heat.name for heat in shown] == ["bed", "floor"]
    for number, heat in enumerate(shown):
        assert np.shares_memory(heat.values, result.similarity)
        np.testing.assert_array_equal(heat.of_points(), result.heat(number))


def test_the_page_tells_places_as_the_tables_do(tmp_path: Path) -> None:
    result = result_of(["bed"], rotation=ROTATION, origin=np.array([1000.0, 0, 0]))
    write_result(result, tmp_path)
    text = (tmp_path / "scene.html").read_text()
    start = text.index('type="application/json">') + len('type="application/json">')
    data = json.loads(text[start : text.index("</script>", start)])
    assert data["origin"] == [1000, 0, 0] and data["rotation"] == ROTATION.tolist()
    said = json.loads((tmp_path / "summary.json").read_text())
    assert said["origin"] == [1000, 0, 0] and said["rotation"] == ROTATION.tolist()
