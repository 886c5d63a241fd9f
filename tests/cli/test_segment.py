"""The command as a user types it: a Kinect folder with no flag but words, further questions, and clear refusals."""

import csv
import json
import os
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from tests.helpers.scenes import BoxRoom
from tests.helpers.tiny import write_model
from tests.scan.recordings import write_frames
from xmask3d.cli.main import run
from xmask3d.errors import UserError
from xmask3d.geometry.ply import read_elements
from xmask3d.resources import REPOSITORY
from xmask3d.segment.corrections import CORRECTIONS, Corrections
from xmask3d.segment.saved_features import PointFeatures
from xmask3d.visualize.cloud import colors_to_bytes, write_ply


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_model(tmp_path_factory.mktemp("model"))


@pytest.fixture(scope="module")
def kinect(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("scans") / "büro 7"
    write_frames(folder, BoxRoom(3), 4, color_size=(480, 640), depth_size=(480, 640))
    return folder


@pytest.fixture(scope="module")
def segmented(checkpoint: Path, kinect: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The result of one run over the Kinect folder."""
    out = tmp_path_factory.mktemp("out")
    words = ["sofa|couch", "potted plant", "floor"]
    code = run(["segment", str(kinect), "--query", *words, "--background", "wall", "--instances",
                    "--checkpoint", str(checkpoint), "--device", "cpu", "--out", str(out)])  # fmt: skip
    assert code == 0
    return out


def test_kinect_folder_gives_every_output(segmented: Path) -> None:
    vertex = read_elements(segmented / "labels.ply")["vertex"]
    assert len(vertex) > 20_000 and {"red", "label", "confidence"} <= set(vertex.dtype.names)
    assert set(np.unique(vertex["label"])) <= {-1, 0, 1, 2}
    summary = json.loads((segmented / "summary.json").read_text(encoding="utf-8"))
    assert summary["scan"] == "büro 7" and summary["views"] == 4 and summary["names"][0] == "sofa"
    assert not any(line.startswith("warning") for line in summary["found"])
    assert sum(c["points"] for c in summary["classes"].values()) + summary["unlabelled"] == len(vertex)
    with (segmented / "labels.csv").open(encoding="utf-8") as file:
        rows = list(csv.DictReader(file))
    assert {row["class"] for row in rows} == set(summary["classes"])
    for row in rows:
        points = np.stack([vertex[axis] for axis in "xyz"], 1)[vertex["label"] == summary["names"].index(row["class"])]
        assert int(row["points"]) == len(points)
        np.testing.assert_allclose([float(row[f"center_{axis}"]) for axis in "xyz"], points.mean(0), atol=2e-3)
    for phrase in ("sofa", "potted_plant", "floor"):
        heat = read_elements(segmented / f"heat_{phrase}.ply")["vertex"]
        assert len(heat) == len(vertex) and heat["confidence"].std() > 0
    assert Image.open(segmented / "overview.png").size[0] > 1000
    assert (segmented / "scene.html").stat().st_size > 100_000
    assert (segmented / "objects.csv").read_text(encoding="utf-8").startswith("object,class")


@contextmanager
def held(folder: Path) -> Iterator[None]:
    """Hold a folder by another process, as one that segments does."""
    script = (
        "import sys; from pathlib import Path; from xmask3d.files import locked\n"
        f"with locked(Path({str(folder)!r}), 'a segmentation'): print('held', flush=True), sys.stdin.read()"
    )
    environment = {**os.environ, "PYTHONPATH": str(REPOSITORY)}
    command = [sys.executable, "-c", script]
    with subprocess.Popen(
        command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, env=environment
    ) as process:
        assert process.stdin is not None and process.stdout is not None and process.stdout.readline() == "held\n"
        yield
        process.stdin.close()


def test_saved_features_are_asked_further(segmented: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["query", str(segmented), "something red", "--out", str(tmp_path / "more")]) == 0
    said = capsys.readouterr().out
    assert "something red" in said or "no place stands out" in said
    assert float(said.split("answered in ")[1].split(" s")[0]) < 10
    assert (tmp_path / "more" / "heat_something_red.ply").is_file()
    paths = [json.loads((folder / "summary.json").read_text())["path"] for folder in (segmented, tmp_path / "more")]
    assert paths[0] == paths[1]
    with held(tmp_path / "more"), pytest.raises(UserError, match="another process is at work"):
        run(["query", str(segmented), "bed", "--out", str(tmp_path / "more")])
    assert run(["query", str(segmented / "features.safetensors"), "bed", "chair", "--background", "floor"]) == 0
    assert "answered in" in capsys.readouterr().out


def test_questions_do_without_torch(tmp_path: Path) -> None:
    """Importing torch alone takes longer than an answer may."""
    rng = np.random.default_rng(0)
    unit = rng.normal(size=(300, 128))
    unit = (unit / np.linalg.norm(unit, axis=1, keepdims=True)).astype(np.float16)
    about = {"scan": "room", "model": "none", "clip": "shipped", "temperature": "10", "base_ratio": "0.65",
             "novel_ratio": "0.35", "names": "bed\nsofa", "base_names": "bed", "origin": "0 0 0", "views": "1",
             "rotation": "1 0 0 0 1 0 0 0 1"}  # fmt: skip
    points, ones = rng.random((300, 3)).astype(np.float32), np.ones(300, np.float16)
    row, grey = np.arange(300, dtype=np.int32), np.full((300, 3), 128, np.uint8)
    PointFeatures(points, grey, row, unit, unit, ones, ones.astype(np.int32), about).save(tmp_path / "room.features")
    script = ("import sys; from xmask3d.cli.main import run; run(['query', sys.argv[1], 'sofa', 'bed']);"
              "print('torch' in sys.modules, 'diffusers' in sys.modules)")  # fmt: skip
    command = [sys.executable, "-c", script, str(tmp_path / "room.features")]
    environment = {"PYTHONPATH": str(REPOSITORY), "PATH": "/usr/bin:/bin"}
    said = subprocess.run(command, check=True, text=True, capture_output=True, env=environment).stdout
    assert "answered in" in said and said.endswith("False False\n")


def test_info_describes_without_a_model(kinect: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["info", str(kinect), "--views", "2"]) == 0
    said = capsys.readouterr().out
    assert "4 frames, colour 640 x 480" in said and "2 of 4 frames chosen" in said and "z is up" in said


def test_millimetres_without_colour_by_shape_alone(checkpoint: Path, tmp_path: Path, capsys) -> None:
    points = BoxRoom(1, spacing=0.1).points * 1000
    points[5] = np.nan
    np.savetxt(tmp_path / "room.xyz", points)
    code = run(["segment", str(tmp_path / "room.xyz"), "--query", "bed", "floor", "--checkpoint", str(checkpoint),
                    "--out", str(tmp_path / "out")])  # fmt: skip
    said = capsys.readouterr().out
    assert code == 0 and "taken as millimetres" in said and "no colours" in said and "1 of" in said
    vertex = read_elements(tmp_path / "out" / "labels.ply")["vertex"]
    assert len(vertex) == len(points) - 1 and np.ptp(vertex["x"]) < 5


def test_clicks_on_one_scan_correct_the_next(checkpoint: Path, tmp_path: Path, capsys) -> None:
    room = BoxRoom(1, spacing=0.1)
    for name in ("first", "next"):  # the same things stand in both
        write_ply(tmp_path / f"{name}.ply", room.points, colors_to_bytes(room.colors))
    words = ["--query", "bed", "floor", "--fast", "--checkpoint", str(checkpoint)]
    assert run(["segment", str(tmp_path / "first.ply"), *words, "--out", str(tmp_path / "first")]) == 0
    features = PointFeatures.load(tmp_path / "first" / "features.safetensors")
    label = int(read_elements(tmp_path / "first" / "labels.ply")["vertex"]["label"][100])
    clicks = Corrections.none(features)
    clicks.add(features, 100, ["bed", "floor"][label], "workbench")
    clicks.save(tmp_path / CORRECTIONS)
    capsys.readouterr()
    assert run(["segment", str(tmp_path / "next.ply"), *words, "--corrections", str(tmp_path / CORRECTIONS),
                    "--out", str(tmp_path / "next")]) == 0  # fmt: skip
    summary = json.loads((tmp_path / "next" / "summary.json").read_text(encoding="utf-8"))
    assert summary["names"] == ["bed", "floor", "workbench"] and summary["corrected"] > 0
    assert summary["classes"]["workbench"]["points"] == summary["corrected"]
    assert f"{summary['corrected']:,} points are labelled by clicks" in capsys.readouterr().out


def test_axes_that_point_down_are_no_options(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    points = BoxRoom(1, spacing=0.2).points
    write_ply(tmp_path / "room.ply", points, np.zeros(points.shape, np.uint8))
    assert run(["info", str(tmp_path / "room.ply"), "--up", "-z", "--unit", "m"]) == 0
    assert "up is -z, as given" in capsys.readouterr().out


def test_results_and_their_features_are_found_again(
    checkpoint: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Two scans of one name, without --out; the features of the second elsewhere."""
    monkeypatch.chdir(tmp_path)
    points = BoxRoom(1, spacing=0.2).points
    for home, extra in (("chess", []), ("heads", ["--save-features", "kept/heads.features"])):
        Path(home).mkdir()
        np.savetxt(f"{home}/room.xyz", points)
        run(["segment", f"{home}/room.xyz", "--query", "bed|sofa", "floor", "--unit", "m", "--device", "cpu",
                 "--checkpoint", str(checkpoint), *extra])  # fmt: skip
    said = capsys.readouterr().out
    assert "results go to segmented/room-2: segmented/room holds those of another scan" in said
    for home, folder in (("chess", "room"), ("heads", "room-2")):
        summary = json.loads(Path("segmented", folder, "summary.json").read_text(encoding="utf-8"))
        assert summary["path"] == str(tmp_path / home / "room.xyz") and summary["words"] == ["bed|sofa", "floor"]
        assert not [path for path in Path("segmented", folder).iterdir() if path.name.startswith(".")]
    assert not Path("segmented/room-2/features.safetensors").exists()
    assert run(["query", "segmented/room-2", "lamp", "bed", "--out", "more"]) == 0
    assert run(["query", "more", "chair"]) == 0  # the answer's folder leads to the same features
    assert json.loads(Path("more/summary.json").read_text())["features"] == str(tmp_path / "kept/heads.features")


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["segment", "nowhere", "--query", "sofa"], "nowhere: no such file or folder"),
        (["segment", "nowhere"], "no words to look for"),
        (["segment", "--query", "sofa"], "name one scan, or a file of many with --list FILE"),
        (["segment", "a", "--list", "b", "--query", "sofa"], "name one scan, or a file of many"),
        (["segment", "--list", "b", "--query", "a", "--save-features", "c"], "--save-features: one file for all"),
        (["segment", "--list", "none.txt", "--query", "sofa"], "none.txt: "),
        (["segment", "room.ply", "--query", "sofa", "--checkpoint", "none.pt"], "none.pt: no such file"),
        (["segment", "room.ply", "--query", "a", "--up", "q"], "argument --up: invalid choice: 'q'"),
        (["segment", "room.ply", "--query", "a", "--batch-size", "-1"], "--batch-size -1: at least one view"),
        (["segment", "room.ply", "--query", "a", "--batch-size", "0"], "--batch-size 0: at least one view"),
        (["segment", "room.ply", "--query", "a", "--out", "room.ply"], "--out room.ply: room.ply is a file"),
        (["segment", "room.ply", "--query", "a", "--out", "room.ply/a"], "--out room.ply/a: room.ply is a file"),
        (["segment", "room.ply", "--query", "a", "--save-features", "."], "--save-features .: a folder; name a file"),
        (["query", "none.features", "sofa", "--out", "room.ply"], "--out room.ply: room.ply is a file"),
        (["view", "room.ply", "--port", "99999"], "--port 99999: no port"),
        (["view", "room.ply", "--host", "no.such.host.invalid"], "--host no.such.host.invalid: cannot be served on"),
        (["query", "none.features", "sofa"], "none.features: no such file"),
        (["segment", "room.ply", "--query", "sofa", "--settle", "1"], "--settle 1: a share of the labels"),
        (["segment", "room.ply", "--query", "sofa", "--fast", "--settle"], "--settle is about pictures"),
        (["info", "room.las"], "reading LAS: needs a package"),
    ],
)
def test_mistakes_get_one_line(
    arguments: list[str], message: str, checkpoint: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setitem(sys.modules, "laspy", None)
    write_ply(tmp_path / "room.ply", np.eye(3, dtype=np.float32), np.zeros((3, 3), np.uint8))
    (tmp_path / "room.las").write_bytes(b"LASF")
    if arguments[0] == "segment" and "--checkpoint" not in arguments:
        arguments = [*arguments, "--checkpoint", str(checkpoint)]
    # Nothing is loaded, nor worked on, first.
    monkeypatch.setattr("xmask3d.segment.segmenter.Segmenter.from_pretrained", None)
    with pytest.raises(UserError, match=message) as caught:
        run(arguments)
    assert "\n" not in str(caught.value)
    assert {path.name for path in tmp_path.iterdir()} == {"room.ply", "room.las"}
