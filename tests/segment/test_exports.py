"""Labels carried to a scan's own file, and the forms that other programs take."""

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import trimesh
from PIL import Image

from tests.segment.test_result_files import result_of
from xmask3d.cli.main import run
from xmask3d.data.predictions import PredictionFolder
from xmask3d.errors import UserError
from xmask3d.geometry.ply import read_elements
from xmask3d.scan.clouds import read_cloud
from xmask3d.segment.answer import Answer
from xmask3d.segment.boxes import boxes, oriented_box
from xmask3d.segment.exports import export_answer
from xmask3d.segment.result_files import write_result
from xmask3d.splits import load_benchmark

ORIGIN = np.array([2000.0, 0, 0])


def answer(**changes: object) -> Answer:
    """Labels of a chair on a floor: a box of 4 x 2 x 6 dm turned by 30 degrees, and a grid."""
    steps = [np.linspace(-side / 2, side / 2, number) for side, number in ((0.4, 9), (0.2, 9), (0.6, 13))]
    sides = np.stack(np.meshgrid(*steps), -1).reshape(-1, 3)
    cos, sin = np.cos(np.pi / 6), np.sin(np.pi / 6)
    chair = sides @ np.array([[cos, sin, 0], [-sin, cos, 0], [0, 0, 1]]) + [1, 1, 0.4]
    floor = np.stack(np.meshgrid(np.linspace(0, 2, 41), np.linspace(0, 2, 41), [0.0]), -1).reshape(-1, 3)
    labels = np.repeat([1, 0], [len(chair), len(floor)])
    made = Answer("room", np.concatenate([chair, floor]), None, labels, np.full(len(labels), 0.75),
                  ["floor", "chair"], np.eye(3))  # fmt: skip
    return replace(made, **changes)


def test_vertices_take_the_nearest_label_and_far_ones_none(tmp_path: Path) -> None:
    path = tmp_path / "scan.ply"
    places = np.array([[1000.0, 1000, 400], [100, 100, 5], [9000, 9000, 9000]])  # millimetres
    trimesh.Trimesh(places, [[0, 1, 2]], process=False).export(path)
    exports = export_answer(answer(file=path, units=1000.0), "same", tmp_path)
    found = read_elements(exports.files[0])
    assert exports.files == [tmp_path / "labelled.ply"]
    assert found["vertex"]["label"].tolist() == [1, 0, -1] and found["face"]["vertex_indices"].tolist() == [[0, 1, 2]]
    assert exports.notes == ["3 vertices take the label of the nearest of 2,734 points"]
    with pytest.raises(UserError, match="is the scan itself"):
        export_answer(answer(file=path, units=1000.0), str(path), tmp_path)


def test_a_file_that_is_gone_or_damaged_leaves_the_points(tmp_path: Path) -> None:
    for number, text in enumerate([None, "ply\nnonsense"]):
        path = tmp_path / f"{number}.ply"
        if text:
            path.write_text(text)
        exports = export_answer(answer(file=path), "same", tmp_path)
        assert len(read_elements(exports.files[0])["vertex"]) == 2734 and len(exports.notes) == 1


def test_a_las_file_that_is_damaged_leaves_the_points(tmp_path: Path) -> None:
    laspy = pytest.importorskip("laspy")
    (tmp_path / "a.las").write_bytes(b"LASF" + bytes(400))
    exports = export_answer(answer(file=tmp_path / "a.las"), "same", tmp_path)
    assert len(laspy.read(str(exports.files[0])).points) == 2734 and len(exports.notes) == 1


def test_the_cloud_of_a_recording_has_its_own_colours(tmp_path: Path) -> None:
    colors = np.random.default_rng(0).integers(0, 255, (60, 3), dtype=np.uint8)
    result = result_of(["bed", "floor"], origin=ORIGIN, colors=colors)
    write_result(result, tmp_path)
    vertex = read_elements(tmp_path / "fused.ply")["vertex"]
    assert np.stack([vertex[name] for name in ("red", "green", "blue")], 1).tolist() == colors.tolist()
    assert vertex["label"].tolist() == result.labels.tolist()
    np.testing.assert_array_equal(np.stack([vertex[a] for a in "xyz"], 1), result.points + ORIGIN)
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine/fused.ply").write_text("mine")
    write_result(result, tmp_path / "mine")
    assert (tmp_path / "mine/fused.ply").read_text() == "mine" and (tmp_path / "mine/labels_fused.ply").is_file()


def test_a_result_has_the_materials_of_its_mesh_and_the_scan_keeps_its_own(tmp_path: Path) -> None:
    mesh = trimesh.creation.box().subdivide()
    picture = trimesh.visual.material.SimpleMaterial(image=Image.new("RGB", (4, 4)))
    mesh.visual = trimesh.visual.TextureVisuals(uv=mesh.vertices[:, :2], material=picture)
    mesh.export(tmp_path / "scan.obj", mtl_name="scan.mtl")
    own = {path.name: path.read_bytes() for path in tmp_path.iterdir()}
    result = result_of(["bed", "floor"], about={"file": str(tmp_path / "scan.obj"), "units": 1.0})
    for folder in (tmp_path / "out", tmp_path):
        write_result(result, folder)
        files = {path.name for path in write_result(result, folder)}
        assert {"labelled.obj", "labelled.labels.csv"} <= files
        assert ({"scan.mtl", "material_0.png"} <= files) == (folder != tmp_path)
        assert all((folder / name).is_file() for name in own if name != "scan.obj")
        write_result(result_of(["bed"]), folder)
        assert not (folder / "labelled.labels.csv").exists()
    assert not (tmp_path / "out/scan.mtl").exists()
    assert {name: (tmp_path / name).read_bytes() for name in own} == own


def test_an_answer_is_read_back_from_its_folder(tmp_path: Path) -> None:
    source = tmp_path / "scan.ply"
    trimesh.PointCloud(np.random.default_rng(0).random((60, 3)).astype(np.float32)).export(source)
    objects = {"objects": np.arange(60) % 2, "object_names": ["bed", "bed"]}
    result = result_of(["bed", "floor"], **objects, about={"file": str(source), "units": 1.0})
    write_result(result, tmp_path / "out")
    assert (tmp_path / "out/labelled.ply").is_file()
    kept = Answer.read(tmp_path / "out")
    assert kept.file == source and kept.objects.tolist() == objects["objects"].tolist()
    assert kept.labels.tolist() == result.labels.tolist() and kept.names == ["bed", "floor"]
    with pytest.raises(UserError, match="no labels"):
        Answer.read(tmp_path)
    (tmp_path / "out/summary.json").write_text(json.dumps({"names": ["bed", "floor"], "file": 5}))
    with pytest.raises(UserError, match="damaged"):
        Answer.read(tmp_path / "out")


def test_boxes_are_turned_with_their_object(tmp_path: Path) -> None:
    tilt = np.array([[1.0, 0, 0], [0, 0, 1], [0, -1, 0]])  # a scan whose y points down
    upright = answer().with_objects()
    assert upright.object_names == ["floor", "chair"]
    chair = boxes(upright)[1]
    np.testing.assert_allclose(sorted(chair["size"]), [0.2, 0.4, 0.6], atol=1e-6)
    np.testing.assert_allclose(chair["center"], [1, 1, 0.4], atol=1e-6)
    assert chair["points"] == 1053 and chair["confidence"] == 0.75
    points = upright.points[upright.objects == 1]
    np.testing.assert_allclose(np.sort(chair["corners"], 0)[[0, -1]], [points.min(0), points.max(0)], atol=1e-4)
    turned = oriented_box(points @ tilt, tilt)
    np.testing.assert_allclose(sorted(turned[2]), [0.2, 0.4, 0.6], atol=1e-6)
    np.testing.assert_allclose(turned[1][2], tilt[2], atol=1e-12)
    exports = export_answer(upright, "boxes", tmp_path)
    assert json.loads(exports.files[0].read_text())["objects"][1]["class"] == "chair"


@pytest.mark.parametrize("points", [1, 2, 5])
def test_a_box_of_few_points_or_a_line(points: int) -> None:
    _, axes, size = oriented_box(np.arange(points)[:, None] * np.array([[0.0, 1, 0]]), np.eye(3))
    assert size.max() == points - 1 and np.allclose(axes @ axes.T, np.eye(3))


def test_one_file_an_object(tmp_path: Path) -> None:
    names = [path.name for path in export_answer(answer(), "objects", tmp_path).files]
    assert names == ["000_floor.ply", "001_chair.ply", "objects.json"]
    assert len(read_elements(tmp_path / "objects/001_chair.ply")["vertex"]) == 1053
    said = json.loads((tmp_path / "objects/objects.json").read_text())["objects"]
    assert [entry["file"] for entry in said] == names[:2]
    fewer = answer(labels=np.zeros(2734, np.int64))
    export_answer(fewer, "objects", tmp_path)
    assert not (tmp_path / "objects/001_chair.ply").exists()


def test_text_files_of_scannet_are_read_by_the_scorer(tmp_path: Path) -> None:
    made = answer(name="scene0000_00_vh_clean_2")
    export_answer(made, "scannet", tmp_path)
    assert set((tmp_path / "scannet/semantic/scene0000_00.txt").read_text().split()) == {"2", "5"}
    folder = PredictionFolder(tmp_path / "scannet", load_benchmark("scannet20full/all"))
    read = folder.read("scene0000_00", made.points)
    assert [folder.benchmark.class_names[i] for i in read.labels[[0, -1]]] == ["chair", "floor"]
    assert read.masks is not None and sorted(read.masks.sum(1)) == [1053, 1681]
    notes = export_answer(answer(names=["floor", "lamp x"]), "scannet", tmp_path).notes
    assert notes == ["not a class of ScanNet, written as 0: lamp x"]
    for few, lost in (("sofa,potted plant", "potted plant"), ("couch,potted plant,sofa", "sofa")):  # of 20, of 200
        words = few.split(",")
        several = answer(names=words, labels=np.arange(2734) % len(words))
        assert export_answer(several, "scannet", tmp_path).notes == [f"not a class of ScanNet, written as 0: {lost}"]
    with pytest.raises(UserError, match="none of the words"):
        export_answer(answer(names=["x", "y"]), "scannet", tmp_path)


@pytest.mark.parametrize("name", ["scan.xyz", "scan.splat", "scan.ply"])
@pytest.mark.parametrize("to", ["same", "glb", "pcd"])
def test_clouds_of_other_formats_are_written_as_points(tmp_path: Path, name: str, to: str) -> None:
    path = tmp_path / name
    if name == "scan.ply":
        trimesh.PointCloud(answer().points).export(path)
    else:
        path.write_text("0 0 0\n")
    (file,) = export_answer(answer(file=path), to, tmp_path).files
    assert len(read_cloud(file, 1.0).points) == 2734


def test_text_files_of_a_file_that_changed_are_of_the_points(tmp_path: Path) -> None:
    path = tmp_path / "scan.ply"
    path.write_text("ply\nnonsense")
    other = tmp_path / "scannet/instance/masks/room_2_000.txt"  # of another scan
    for labels, count in ((answer().labels, 2), (np.zeros(2734, np.int64), 1)):
        exports = export_answer(answer(file=path, labels=labels), "scannet", tmp_path)
        assert len((tmp_path / "scannet/semantic/room.txt").read_text().split()) == 2734
        assert exports.notes[0].startswith("a line a labelled point: scan.ply is not read again")
        assert len([path for path in other.parent.iterdir() if path != other]) == count
        other.write_text("1")
    assert other.exists()


def test_a_summary_of_others_names_no_place_elsewhere(tmp_path: Path) -> None:
    write_result(result_of(["bed", "floor"], name="../../evil"), tmp_path / "out")
    (file,) = export_answer(Answer.read(tmp_path / "out"), "training", tmp_path / "out").files
    assert file.name == "evil_vh_clean_2.pth" and file.is_relative_to(tmp_path / "out/training")


@pytest.mark.parametrize(
    ("words", "message"),
    [("R --to boxes --paint", "--paint has no effect on --to boxes"), ("R --checkpoint best", "is for runs"),
     ("R out --to a.ply", "give one of them"), ("M out --paint", "is for results"), ("M --to ply", "is for results")],
)  # fmt: skip
def test_what_would_have_no_effect_is_refused(tmp_path: Path, words: str, message: str) -> None:
    for name, file in (("R", "summary.json"), ("M", "config.yaml")):
        (tmp_path / name).mkdir()
        (tmp_path / name / file).write_text("{}")
    source, *rest = words.split()
    with pytest.raises(UserError, match=message):
        run(["export", str(tmp_path / source), *rest])


def test_an_unknown_format_is_named(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"--to out\.usd: not a format"):
        export_answer(answer(), "out.usd", tmp_path)
