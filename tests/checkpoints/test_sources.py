"""Choice of a model by name."""

import json
import os
import time
from pathlib import Path

import pytest
import torch

from tests.helpers.tiny import write_config
from xmask3d.build import build_model
from xmask3d.checkpoints import sources
from xmask3d.checkpoints.checkpoint import Checkpoint, CheckpointFolder
from xmask3d.checkpoints.export import export_model
from xmask3d.checkpoints.sources import find_source
from xmask3d.checkpoints.validations import best_metrics, record_validation
from xmask3d.config import load_config, save_config
from xmask3d.errors import UserError


def save_run(folder: Path, score: float, benchmark: str = "scannet20/B15N4") -> Path:
    """A run with one checkpoint, its record and its configuration; returns its best checkpoint."""
    config = load_config("rooms/B15N4")
    config.benchmark = benchmark
    checkpoints = CheckpointFolder(folder / "checkpoints")
    checkpoints.save(Checkpoint(7, 2, {"x": torch.zeros(1)}, {}, config.model_dump(mode="json")))
    record_validation(checkpoints.folder, 7, {"fused_hiou": score})
    checkpoints.mark_best(7, score)
    save_config(config, folder / "config.yaml")
    return checkpoints.folder / "best.pt"


@pytest.fixture
def shipped(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A shipped model that scored 0.5."""
    config = load_config(write_config(tmp_path))
    monkeypatch.chdir(tmp_path)
    config.model.clip, config.model.diffusion = "clip", "diffusion"
    run = tmp_path / "elsewhere"
    folder = CheckpointFolder(run / "checkpoints")
    folder.save(Checkpoint(7, 2, build_model(config).model.state_dict(), {}, config.model_dump(mode="json")))
    record_validation(folder.folder, 7, {"fused_hiou": 0.5})
    save_config(config, run / "config.yaml")
    export_model(run, tmp_path / "shipped")
    monkeypatch.setattr(sources, "SHIPPED", tmp_path / "shipped")
    return tmp_path / "shipped" / "model.safetensors"


def test_a_run_is_taken_only_where_it_scored_better(shipped: Path, tmp_path: Path) -> None:
    runs = tmp_path / "runs"
    source = find_source(runs=runs)
    training = "3750 training steps on 500 clean rooms, then 974 on rooms that look like scans"
    assert source.words == f"the shipped small model (scannet20/B15N4: {training})" and source.hint == ""
    save_run(runs / "short", 0.4)
    save_run(runs / "other", 0.9, "scannet20/B12N7")
    assert best_metrics(runs / "short" / "checkpoints") == {"fused_hiou": 0.4}
    source = find_source(runs=runs)
    assert source.checkpoint == shipped and "--model newest" in source.hint
    better = save_run(runs / "long" / "a", 0.6)
    source = find_source(runs=runs)
    assert source.checkpoint == better and source.config == runs / "long" / "a" / "config.yaml"
    assert "0.600" in source.words and "0.500" in source.words and "--model shipped" in source.hint
    assert find_source("shipped", runs=runs).checkpoint == shipped


def test_stray_runs_never_stop_it(shipped: Path, tmp_path: Path) -> None:
    runs = tmp_path / "runs"
    damaged = save_run(runs / "damaged", 0.9)
    damaged.unlink()
    damaged.write_bytes(b"x")
    (save_run(runs / "unrecorded", 0.9).parent / "validations.json").write_text("[")
    (save_run(runs / "odd", 0.9).parent / "best.json").write_text("{}")
    (save_run(runs / "foreign", 0.9).parents[1] / "config.yaml").write_text("model: {point_network: os.system}\n")
    (save_run(runs / "bare", 0.9).parents[1] / "config.yaml").unlink()
    (runs / "empty" / "checkpoints").mkdir(parents=True)
    (runs / "empty" / "checkpoints" / "step-00000001.pt").write_bytes(b"")
    assert find_source(runs=runs).checkpoint == shipped


def test_newest_and_paths(tmp_path: Path) -> None:
    runs = tmp_path / "runs"
    with pytest.raises(UserError, match="no run below"):
        find_source("newest", runs=runs)
    for name, age in (("old", 100), ("new", 0)):
        best = save_run(runs / name, 0.1)
        for path in best.parent.glob("*.pt"):
            os.utime(path, (time.time() - age, time.time() - age))
    source = find_source("newest", runs=runs)
    assert source.checkpoint == runs / "new" / "checkpoints" / "best.pt" and "newest run" in source.words
    assert source.config == runs / "new" / "config.yaml"
    assert find_source(runs / "old").checkpoint == runs / "old" / "checkpoints" / "best.pt"
    for missing in ("none.pt", str(tmp_path / "none" / "x.pt"), "runs/none.pt/x", "nothing"):
        with pytest.raises(UserError, match="no such file, nor the name of a model"):
            find_source(missing)
    lonely = tmp_path / "x" / "y" / "weights.safetensors"
    lonely.parent.mkdir(parents=True)
    lonely.write_bytes(b"")
    with pytest.raises(UserError, match="no configuration beside it"):
        find_source(lonely)


def test_without_a_shipped_model_the_newest_run_is_taken(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sources, "SHIPPED", tmp_path / "nothing")
    with pytest.raises(UserError, match="no shipped model"):
        find_source(runs=tmp_path / "runs")
    best = save_run(tmp_path / "runs" / "a", 0.1)
    assert json.loads((best.parent / "best.json").read_text())["score"] == 0.1
    assert find_source(runs=tmp_path / "runs").checkpoint == best
