"""Damaged files of other data sets: one line that names the file, at the command and in each reader."""

from pathlib import Path

import numpy as np
import pytest

from tests.helpers.command import run_command
from tests.helpers.releases import WRITERS
from tests.helpers.scenes import BoxRoom
from xmask3d.datasets.matterport import find_scenes
from xmask3d.datasets.prepare import DATASETS, prepare
from xmask3d.datasets.raw_scene import label_vertices
from xmask3d.errors import UserError

HOUSE, REGIONS = "v1/scans/17DRP5sb8fy/", "v1/scans/17DRP5sb8fy/region_segmentations/"
SCENE, VIDEO = "data/0a5c013435/", "Validation/41069021/"
CASES = [
    ("scannetpp", f"{SCENE}scans/mesh_aligned_0.05.ply", b"ply\nnothing", "not a PLY file|its header has no end"),
    ("scannetpp", f"{SCENE}scans/segments.json", b'{"segIndices": [1, 2]}', "2 entries for a mesh of"),
    ("scannetpp", f"{SCENE}scans/segments_anno.json", b'{"segGroups": [{"label": 3}]}', "a group without 'label'"),
    ("scannetpp", f"{SCENE}iphone/pose_intrinsic_imu.json", b'{"frame_000000": {"aligned_pose": [1]}}', "damaged"),
    ("scannetpp", f"{SCENE}iphone/pose_intrinsic_imu.json", b"[1]", "expected poses and intrinsics"),
    ("scannetpp", "metadata/semantic_benchmark/map_benchmark.csv", b"class\nwall\n", "needs the columns class and"),
    ("matterport", f"{REGIONS}region0.fsegs.json", None, "region0.fsegs.json: missing"),
    ("matterport", f"{HOUSE}house_segmentations/17DRP5sb8fy.house", b"P", "no posed frames"),
    ("matterport", f"{HOUSE}undistorted_camera_parameters/17DRP5sb8fy.conf", b"intrinsics_matrix 1", "line 1: damaged"),
    ("matterport", f"{HOUSE}undistorted_camera_parameters/17DRP5sb8fy.conf",
     b"scan d.png " + b"a" * 32 + b"_i.jpg 1\n", "a scan before any intrinsics_matrix"),
    ("matterport", "metadata/category_mapping.tsv", b"raw_category\tnyu40id\nwall\tmany\n", "a table of categories"),
    ("arkitscenes", f"{VIDEO}41069021_3dod_annotation.json", b'{"data": [{"label": "bed"}]}', "oriented boxes"),
    ("arkitscenes", f"{VIDEO}41069021_frames/lowres_wide.traj", b"0 0\n", "not a trajectory"),
    ("arkitscenes", f"{VIDEO}41069021_frames/lowres_wide_intrinsics/41069021_98.765.pincam", b"256 192 200\n",
     "3 numbers; expected width"),
    ("arkitscenes", f"{VIDEO}41069021_frames/lowres_wide/new.png", b"", "whose name ends in its time"),
    ("replica", "office_0/habitat/info_semantic.json", b'{"objects": 3}', "objects and their classes"),
    ("replica", "cam_params.json", b'{"camera": {"w": 1}}', "the camera of rendered frames"),
    ("replica", "office0/traj.txt", b"1 0 0 0 0 1 0 0 0 0 1 0 0 0 0 1\n", "1 poses for 2 pictures"),
]  # fmt: skip


@pytest.fixture(scope="module")
def releases(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A release of each data set, of a room of few points."""
    folder, room = tmp_path_factory.mktemp("releases"), BoxRoom(3, 0.3)
    for name, write in WRITERS.items():
        write(folder / name, room)
    return folder


@pytest.mark.parametrize(("name", "file", "content", "message"), CASES)
def test_a_damaged_file_is_one_line(
    name: str, file: str, content: bytes | None, message: str, releases: Path, tmp_path: Path
) -> None:
    raw, path = releases / name, releases / name / file
    before = path.read_bytes() if path.is_file() else None
    scene, split = next(iter(DATASETS[name].find_scenes(raw, {}).items()))
    try:
        path.unlink() if content is None else path.write_bytes(content)
        with pytest.raises(UserError, match=message) as caught:
            prepare(name, raw, tmp_path, raw, split, scene, 1)
    finally:
        path.unlink(missing_ok=True) if before is None else path.write_bytes(before)
    assert "\n" not in str(caught.value) and not list(tmp_path.rglob("*.pth"))


def test_a_damaged_picture_costs_its_frame_alone(releases: Path, tmp_path: Path) -> None:
    raw = releases / "arkitscenes"
    path = raw / VIDEO / "41069021_frames" / "lowres_depth" / "41069021_99.764.png"
    before = path.read_bytes()
    path.write_bytes(before[:100])
    try:
        notes = prepare("arkitscenes", raw, tmp_path, raw, "val", "41069021", 1)
    finally:
        path.write_bytes(before)
    assert notes is not None and any("41069021_99.764.png" in note and "left out" in note for note in notes)
    assert [file.stem for file in (tmp_path / "arkitscenes_2d" / "41069021" / "color").iterdir()] == ["41069021_98.764"]


def test_faces_beyond_the_mesh_are_refused() -> None:
    faces = np.zeros(2, [("vertex_indices", "i4", 3)])
    faces["vertex_indices"][1] = 7
    with pytest.raises(UserError, match=r"m\.ply: damaged; a face names a vertex that is not among its 5"):
        label_vertices(Path("m.ply"), faces, np.array([1, 1]), 5)
    with pytest.raises(UserError, match="differ in their number of corners"):
        label_vertices(Path("m.ply"), np.zeros(2, []), np.array([1, 1]), 5)


def test_scenes_of_lists(releases: Path, tmp_path: Path, capsys: pytest.CaptureFixture) -> None:
    raw = releases / "matterport"
    assert find_scenes(raw, {"train": ["17DRP5sb8fy"]}) == {"17DRP5sb8fy_region0": "train"}
    with pytest.raises(UserError, match="no folder of the house other"):
        find_scenes(raw, {"val": ["other"]})
    assert DATASETS["replica"].find_scenes(raw, {"val": ["room_0"]}) == {"room_0": "val"}
    (tmp_path / "empty").mkdir()
    for name in DATASETS:
        assert run_command("prepare", name, tmp_path / "empty", tmp_path / "out") == 1
        assert f"no scenes of {name}" in capsys.readouterr().err
    (tmp_path / "list.txt").write_text("nowhere\n")
    line = ("prepare", "replica", raw, tmp_path / "out", "--val-list", tmp_path / "list.txt", "--workers", 1)
    assert run_command(*line) == 1
    shown = capsys.readouterr()
    assert "failed: " in shown.err and "nowhere/habitat/mesh_semantic.ply" in shown.err
    assert "0 scenes ready (0 from before), 1 failed" in shown.out


@pytest.mark.parametrize(
    "words", [["matterport", ".", "x", "--s3dis"], ["replica", ".", "x", "--labels", "y"], [".", "x", "--frames", "y"]]
)
def test_an_option_of_another_data_set_is_refused(words: list[str], capsys: pytest.CaptureFixture) -> None:
    assert run_command("prepare", *words) == 1
    assert "leave it out" in capsys.readouterr().err
