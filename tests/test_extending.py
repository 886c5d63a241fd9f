"""The worked examples of `docs/extending.md`: a step of training with each, and an evaluation."""

import json
from pathlib import Path

import numpy as np
import pytest

from tests.helpers.extending import code, configuration
from tests.helpers.scenes import BoxRoom
from tests.helpers.tiny import write_config
from xmask3d.config import load_config
from xmask3d.engine.evaluate import evaluate
from xmask3d.engine.train import train
from xmask3d.errors import UserError
from xmask3d.geometry.camera import PUBLISHED_INTRINSICS

IDS = {"wall": 1, "floor": 2, "bed": 3, "chair": 4, "table": 5}
ONE_STEP = {"epochs": 1, "batch_size": 2, "log_every": 1, "save_minutes": None, "evaluate_every": 0, "picture_every": 0}


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Working folder, which Python imports from."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(tmp_path)
    return tmp_path


def write_npz(path: Path, seed: int, frames: int = 2) -> None:
    """One box room in the layout of the example."""
    room, camera = BoxRoom(seed, 0.1), PUBLISHED_INTRINSICS
    poses = [room.pose(2 * np.pi * frame / frames) for frame in range(frames)]
    images, depths, kinds = zip(*(room.render(pose, camera, (240, 320)) for pose in poses), strict=True)
    names = {0: "wall", 1: "floor", 3: "bed", 4: "chair", 6: "table"}  # ids of ScanNet's 3D files
    path.parent.mkdir(parents=True, exist_ok=True)
    np.savez(
        path,
        points=room.points,
        colors=np.uint8((room.colors + 1) * 127.5),
        ids=np.array([IDS.get(names.get(label, ""), 0) for label in room.labels]),
        images=np.stack(images),
        depths=np.stack(depths),
        poses=np.stack(poses),
        camera=np.array([camera.fx, camera.fy, camera.cx, camera.cy]),
        id_pictures=np.array([IDS.get(name, 0) for name in room.surface_names])[np.stack(kinds)],
    )


def last_checkpoint(run: Path) -> Path:
    return max((run / "checkpoints").glob("step-*.pt"))


def test_a_data_set(folder: Path) -> None:
    (folder / "my_scans.py").write_text(code("A data set")[0])
    (folder / "lists").mkdir()
    (folder / "lists" / "my_scans.yaml").write_text(code("A data set", "yaml")[0])
    for number, split in enumerate(("train", "train", "val")):
        write_npz(folder / "data" / "my_scans" / split / f"room{number}.npz", number)
    write_config(folder, folder / "data" / "my_scans", train=ONE_STEP)
    (folder / "mine.yaml").write_text("include: tiny.yaml\n" + code("A data set", "yaml")[1])
    config = load_config("mine.yaml", ["data.views_per_scene=1"])
    assert train(config) == 0
    results = evaluate(config, last_checkpoint(config.output))
    assert results is not None
    table = json.loads((results.folder / f"{results.name}.json").read_text())
    assert [entry["class"] for entry in table["classes"]] == list(IDS) and table["views"] == 2
    assert table["scenes"] == ["room2"] and table["points"] > 5000
    (folder / "data" / "my_scans" / "val" / "room2.npz").write_bytes(b"no scene")
    with pytest.raises(UserError, match=r"room2\.npz: damaged"):
        evaluate(config, last_checkpoint(config.output))


def test_a_loss(folder: Path, tiny: Path) -> None:
    (folder / "my_losses.py").write_text(code("A loss")[0])
    extra = json.dumps(configuration("A loss")["loss"]["extra"])
    overrides = [f"{key}={json.dumps(value)}" for key, value in ONE_STEP.items()]
    overrides = [f"train.{override}" for override in overrides] + ["data.views_per_scene=1"]
    lines = {}
    for name, chosen in (("plain", []), ("own", [f"loss.extra={extra}"])):
        assert train(load_config(tiny, [*overrides, *chosen, f"output={folder / name}"])) == 0
        lines[name] = next(line for line in (folder / name / "train.log").read_text().splitlines() if " loss " in line)
    plain, own = (float(line.split(" loss ")[1].split()[0]) for line in lines.values())
    added = float(lines["own"].split(", own ")[1].split(")")[0])
    assert 0 < added <= 1.0 and own == pytest.approx(plain + added, abs=2e-3)
