"""Other data sets: prepared from tiny releases in the published layouts, checked, and evaluated on."""

import json
import re
from dataclasses import astuple
from pathlib import Path

import numpy as np
import pytest
import torch
import yaml
from safetensors.torch import save_file

from tests.helpers.command import run_command
from tests.helpers.releases import WRITERS, Shot, names_of
from tests.helpers.scenes import BoxRoom
from tests.helpers.tiny import write_config
from xmask3d.build import build_model, build_reader
from xmask3d.config import Config, load_config
from xmask3d.data.images import resize_nearest
from xmask3d.resources import REPOSITORY
from xmask3d.splits import load_benchmark

SCENES = {
    "scannetpp": "0a5c013435",
    "matterport": "17DRP5sb8fy_region0",
    "arkitscenes": "41069021",
    "replica": "office_0",
}
VIEWS = {"scannetpp": 3, "matterport": 2, "arkitscenes": 2, "replica": 2}  # a tall picture becomes two
OTHER_NAMES = {"scannetpp": {"desk": "table"}, "matterport": {"otherfurniture": "other"}}
ROOM = BoxRoom(3, 0.07)


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A tiny untrained model, with its configuration beside it."""
    folder = tmp_path_factory.mktemp("model")
    torch.manual_seed(0)
    built = build_model(load_config(write_config(folder, folder))).model
    save_file({key: value.contiguous() for key, value in built.state_dict().items()}, folder / "model.safetensors")
    return folder / "model.safetensors"


def configuration(name: str, model: Path, root: Path) -> Path:
    """Write the shipped configuration of a data set with the tiny model in place of the published one."""
    tiny = yaml.safe_load(model.with_name("tiny.yaml").read_text())
    data = tiny["data"] | {"root": str(root), "max_points": 65000}
    content = {"include": str(REPOSITORY / "config" / "cross" / f"{name}.yaml"), "data": data, "model": tiny["model"]}
    content |= {"output": str(root / "run"), "evaluate": {"batch_size": 2, "workers": 0, "max_points": 65000}}
    path = root / f"{name}.yaml"
    path.write_text(yaml.safe_dump(content))
    return path


def expected_classes(name: str) -> np.ndarray:
    """Class ids of the room's points in the class list of a data set."""
    benchmark = load_benchmark(f"{name}/all")
    others = OTHER_NAMES.get(name, {})
    names = [others.get(each, each) for each in names_of(ROOM)]
    return np.array([benchmark.class_names.index(n) if n in benchmark.class_names else len(benchmark.class_names)
                     for n in names])  # fmt: skip


def check_view(config: Config, scene: str, view_name: str, shot: Shot) -> None:
    """Compare the label picture of a prepared view, which follows from pose, camera and depth, with the truth."""
    benchmark = load_benchmark(config.benchmark)
    view = build_reader(config, benchmark, "val").read_view(scene, view_name)
    others = OTHER_NAMES.get(config.data.layout, {})
    truth = resize_nearest(np.array(shot.names), (240, 320))
    ids = {name: i for i, name in enumerate(benchmark.class_names)}
    classes = np.vectorize(lambda name: ids.get(others.get(name, name), len(ids)))(truth)
    camera = shot.camera.scaled(shot.depth.shape, (240, 320))
    assert astuple(view.intrinsics) == pytest.approx(astuple(camera), rel=1e-4) and view.label_map is not None
    known = (classes < len(ids)) & (view.label_map < len(ids))
    assert (view.label_map == classes)[known].mean() > 0.9 and known.mean() > 0.15
    assert np.abs(view.image.astype(float) - resize_nearest_color(shot.color)).mean() < 8


def resize_nearest_color(picture: np.ndarray) -> np.ndarray:
    return np.stack([resize_nearest(channel, (240, 320)) for channel in picture.transpose(2, 0, 1)], -1)


@pytest.mark.parametrize("name", SCENES)
def test_a_release_is_prepared_checked_and_evaluated_on(
    name: str, model: Path, tmp_path: Path, capsys: pytest.CaptureFixture
) -> None:
    shots = WRITERS[name](tmp_path / "raw", ROOM)
    line = ("prepare", name, tmp_path / "raw", tmp_path / "out", "--workers", 1, "--step", 1)
    assert run_command(*line) == 0
    assert "1 scenes ready (0 from before), 0 failed" in capsys.readouterr().out
    assert run_command(*line) == 0 and "(1 from before)" in capsys.readouterr().out
    path = configuration(name, model, tmp_path / "out")
    config = load_config(path)
    benchmark = load_benchmark(config.benchmark)
    reader = build_reader(config, benchmark, "val")
    assert reader.scene_names == [SCENES[name]]
    scene = reader.read_scene(SCENES[name])
    expected = expected_classes(name)
    compared = expected < benchmark.num_classes if name == "arkitscenes" else slice(None)  # floor lies in boxes too
    assert scene.labels is not None
    assert (scene.labels == expected)[compared].mean() > 0.97
    np.testing.assert_allclose(scene.points, ROOM.points)
    assert len(scene.view_names) == VIEWS[name]
    for view, shot in shots.items():
        check_view(config, SCENES[name], view, shot)
    assert run_command("check", path, "--data") == 0
    assert f"usable {VIEWS[name]}" in capsys.readouterr().out
    assert run_command("evaluate", path, model) == 0
    results = json.loads(next((tmp_path / "out" / "run").rglob("model*/*.json")).read_text())
    assert results["scenes"] == [SCENES[name]] and results["views"] == VIEWS[name]
    assert results["points"] == len(scene.points)


def test_the_page_names_the_same_data_sets() -> None:
    page = (REPOSITORY / "docs" / "benchmarks.md").read_text()
    assert re.findall(r"^xmask3d prepare (\w+) +RAW data/(\w+)", page, re.MULTILINE) == [(n, n) for n in SCENES]
