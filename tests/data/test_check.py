import runpy
import shutil
import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from tests.helpers.scenes import write_scenes
from xmask3d.benchmark import load_benchmark
from xmask3d.data.check import check_split, describe
from xmask3d.data.samples import Limits
from xmask3d.data.scannet import open_reader
from xmask3d.data.visibility import Visibility

TOOL = Path(__file__).parents[2] / "tools" / "check_data.py"
BENCHMARK = load_benchmark("scannet20/B15N4")


@pytest.fixture(scope="module")
def clean(tmp_path_factory):
    return write_scenes(tmp_path_factory.mktemp("scans"), views=2, spacing=0.1)


@pytest.fixture
def root(clean, tmp_path):
    return Path(shutil.copytree(clean, tmp_path / "data"))


def check(root, split="train", workers=1, **options):
    reader = open_reader("scannet", root, split, BENCHMARK)
    return check_split(reader, Limits(101, 64999, 11), Visibility(), workers=workers, **options)


def test_clean_data(clean):
    report = check(clean)
    assert report.problems == []
    assert (report.scenes, report.views, report.usable, report.with_labels, report.with_caption) == (2, 4, 4, 4, 4)
    assert report.image_sizes == {(240, 320): 4} and report.depth_sizes == {(240, 320): 4}
    assert len(report.points_per_view) == 4 and min(report.points_per_view) > 100
    assert sum(report.class_points.values()) == report.points
    assert sum(report.class_pixels.values()) == 4 * 240 * 320
    assert report.agree > 0.7 * report.compared > 0
    text = describe(report, BENCHMARK)
    assert "usable 4" in text and "classes without points: cabinet, door, window" in text


def test_processes_and_fewer_views(clean):
    report = check(clean, workers=2, max_views=1)
    assert report.views == 4 and len(report.points_per_view) == 2 and report.problems == []


def test_every_bad_file_is_named(root):
    frames = root / "scannet_2d" / "scene0000_00"
    (frames / "pose" / "0.txt").write_text("nan " * 16)
    (frames / "depth" / "20.png").unlink()
    second = root / "scannet_2d" / "scene0001_00"
    (second / "color" / "0.jpg").unlink()
    (second / "label" / "20.png").write_bytes(b"no picture")
    report = check(root)
    expected = [
        (frames / "pose" / "0.txt", "NaN"),
        (frames / "depth" / "20.png", "missing"),
        (second / "color" / "0.jpg", "missing, though depth/0.png"),
        (second / "color" / "0.jpg", "missing, though pose/0.txt"),
        (second / "label" / "20.png", "not a picture"),
    ]
    assert len(report.problems) == len(expected)
    for path, words in expected:
        assert any(str(path) in problem and words in problem for problem in report.problems), (path, report.problems)


def test_bad_scene_files(root):
    path = root / "scannet_3d" / "train" / "scene0000_00_vh_clean_2.pth"
    path.write_bytes(path.read_bytes()[:999])
    shutil.rmtree(root / "scannet_2d" / "scene0001_00")
    report = check(root)
    assert len(report.problems) == 2 and report.scenes == 2
    assert str(path) in report.problems[0] and "no frames" in report.problems[1]


def test_empty_and_coloured_depth(root):
    folder = root / "scannet_2d" / "scene0000_00" / "depth"
    Image.fromarray(np.zeros((240, 320), np.uint16)).save(folder / "0.png")
    Image.fromarray(np.zeros((240, 320, 3), np.uint8)).save(folder / "20.png")
    assert [p.split(": ")[1] for p in check(root).problems] == ["is empty", "has 3 channels, expected one of 16 bits"]


def test_labels_of_another_list(root):
    for path in (root / "scannet_2d").glob("*/label/*.png"):
        Image.fromarray((np.asarray(Image.open(path)) + 1).astype(np.uint8)).save(path)
    assert any("label ids are wrong" in problem for problem in check(root).problems)


def run_tool(monkeypatch, *arguments):
    monkeypatch.setattr(sys, "argv", [str(TOOL), *map(str, arguments)])
    with pytest.raises(SystemExit) as ended:
        runpy.run_path(str(TOOL), run_name="__main__")
    return ended.value.code


def test_tool(root, tmp_path, monkeypatch, capsys):
    config = tmp_path / "c.yaml"
    config.write_text("benchmark: scannet20/B15N4\n")
    arguments = (config, f"data.root={root}", "--workers", 1)
    assert run_tool(monkeypatch, *arguments) == 0
    assert "nothing wrong" in capsys.readouterr().out
    bad = root / "scannet_2d" / "scene0002_00" / "pose" / "20.txt"
    bad.unlink()
    assert run_tool(monkeypatch, *arguments) == 1
    captured = capsys.readouterr()
    assert captured.err.strip() == f"val: {bad}: missing" and "1 problems" in captured.out
