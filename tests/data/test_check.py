import json
import re
import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from tests.helpers.command import run_command
from tests.helpers.scenes import write_scenes
from tests.helpers.views import PUBLISHED
from xmask3d.data.check import check_split, describe
from xmask3d.data.files import read_points, write_points
from xmask3d.data.scannet import SCANNET
from xmask3d.data.view_settings import ViewFilter
from xmask3d.splits import load_benchmark

BENCHMARK = load_benchmark("scannet20/B15N4")


@pytest.fixture(scope="module")
def clean(tmp_path_factory):
    return write_scenes(tmp_path_factory.mktemp("scans"), views=2, spacing=0.1)


@pytest.fixture
def root(clean, tmp_path):
    return Path(shutil.copytree(clean, tmp_path / "data"))


def check(root, split="train", workers=1, **options):
    reader = SCANNET.open(root, split, BENCHMARK)
    return check_split(reader, replace(PUBLISHED, filter=ViewFilter(101, 64999, 11)), workers=workers, **options)


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


def test_lost_poses_are_no_fault(root):
    (root / "scannet_2d" / "scene0000_00" / "pose" / "0.txt").write_text("-inf " * 16)
    report = check(root)
    assert report.problems == [] and report.lost == 1 and report.usable == 3
    assert any("1 views have an infinite pose" in warning for warning in report.warnings)


def test_an_infinite_camera_is_a_fault(root):
    path = root / "scannet_2d" / "scene0000_00" / "intrinsics.txt"
    path.write_text("inf " * 9)
    report = check(root)
    assert report.lost == 0 and any(str(path) in problem for problem in report.problems)


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


def test_tool(root, tmp_path, capsys):
    config = tmp_path / "c.yaml"
    config.write_text("benchmark: scannet20/B15N4\n")
    arguments = (config, f"data.root={root}", "--workers", 1)
    assert run_command("check", "--data", *arguments) == 0
    assert "nothing wrong" in capsys.readouterr().out
    bad = root / "scannet_2d" / "scene0002_00" / "pose" / "20.txt"
    bad.unlink()
    assert run_command("check", "--data", *arguments) == 1
    captured = capsys.readouterr()
    assert captured.err.strip() == f"val: {bad}: missing" and "1 problems" in captured.out


def save_points(root, points=None, colors=None, labels=None):
    path = root / "scannet_3d" / "train" / "scene0000_00_vh_clean_2.pth"
    was = read_points(path)
    write_points(path, *(was[i] if new is None else new(was[i]) for i, new in enumerate((points, colors, labels))))
    return path


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"labels": lambda x: np.where(np.arange(len(x)) % 3, x, 77)}, r"33\.3% of its label ids .* 0 to 19 \(77\)"),
        ({"colors": lambda x: (x + 1) * 127.5}, "expected -1 to 1"),
        ({"colors": lambda x: x * np.nan}, "colours that are NaN"),
        (dict.fromkeys(("points", "colors", "labels"), lambda x: x[:0]), "has no points"),
    ],
)
def test_bad_points(root, changes, words):
    path = save_points(root, **changes)
    found = [problem for problem in check(root).problems if problem.startswith(f"{path}: ")]
    assert len(found) == 1 and re.search(words, found[0])


@pytest.mark.parametrize(
    ("file", "picture", "words"),
    [
        ("label/0.png", np.full((240, 320), 250, np.uint8), r"100.0% of its label ids are none of 0 to 40 \(250\)"),
        ("label/0.png", np.ones((120, 160), np.uint8), "is 120 x 160, its colour and depth are 240 x 320"),
        ("color/0.jpg", np.zeros((120, 160, 3), np.uint8), "is 120 x 160, most colour pictures of the scene are 240"),
        ("depth/0.png", np.full((120, 160), 2000, np.uint16), "is 120 x 160, most depth pictures of the scene are 240"),
        ("depth/0.png", np.full((240, 320), 200, np.uint8), "has 8 bits, expected 16"),
    ],
)
def test_bad_pictures(clean, tmp_path, file, picture, words):
    root = write_scenes(tmp_path, {"train": 1}, views=3, spacing=0.1)
    path = root / "scannet_2d" / "scene0000_00" / file
    Image.fromarray(picture).save(path)
    found = [problem for problem in check(root).problems if problem.startswith(f"{path}: ")]
    assert len(found) == 1 and re.search(words, found[0])


def test_label_pictures_without_a_class_are_a_warning(root):
    path = root / "scannet_2d" / "scene0000_00" / "label" / "0.png"
    Image.fromarray(np.zeros((240, 320), np.uint8)).save(path)
    report = check(root)
    assert report.problems == [] and len(report.warnings) == 1 and str(path) in report.warnings[0]


def test_what_training_needs(root):
    second = root / "scannet_2d" / "scene0001_00" / "label"
    shutil.rmtree(second)
    assert check(root).problems == []
    assert check(root, training=True).problems == [f"{second}: missing; training needs label pictures"]
    shutil.rmtree(root / "scannet_2d" / "scene0000_00" / "label")
    problems = check(root, training=True).problems
    assert len(problems) == 1 and problems[0].startswith("no view has a label picture")


def test_captions_are_asked_for_where_losses_are(root):
    path = root / "captions.json"
    captions = json.loads(path.read_text())
    path.write_text(json.dumps({"scene0000_00": captions["scene0000_00"]}))
    report = check(root, captions=True)
    assert len(report.problems) == 1 and report.problems[0].startswith("2 of 4 views have no caption")
    path.unlink()
    assert check(root).problems == []
    problems = check(root, captions=True).problems
    assert len(problems) == 1 and "captions.json" in problems[0] and "xmask3d caption" in problems[0]


def test_views_of_which_none_can_be_used(root):
    reader = SCANNET.open(root, "train", BENCHMARK)
    report = check_split(reader, replace(PUBLISHED, filter=ViewFilter(10**6)))
    assert len(report.problems) == 1 and report.problems[0].startswith("none of the 4 views")
    assert len(report.warnings) == 2 and "scene0000_00" in report.warnings[0] and "1000000" in report.warnings[0]


def test_number_of_scenes_is_a_warning(root):
    report = check(root, published=1201)
    assert report.problems == [] and report.warnings[0].startswith("2 scenes, where the published scannet has 1201")


@pytest.mark.parametrize("arguments", [["--views", "0"], ["--views", "-1"], ["data.frame_size=[0,0]"]])
def test_tool_refuses_sizes_below_one(root, tmp_path, capsys, arguments):
    config = tmp_path / "c.yaml"
    config.write_text("benchmark: scannet20/B15N4\n")
    assert run_command("check", "--data", config, f"data.root={root}", *arguments) == 1
    lines = capsys.readouterr().err.strip().splitlines()
    assert len(lines) == 1 and lines[0].startswith("error: ")
