"""Raw ScanNet recordings to a table of scores, by the commands that a user runs."""

import json
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.helpers.raw_scannet import write_raw_scene, write_table
from tests.helpers.scenes import BoxRoom
from tests.helpers.tiny import write_config
from tests.helpers.tools import run_tool
from xmask3d.config import REPOSITORY


@pytest.fixture
def here(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Callable[..., str]:
    """Runs a tool that has no state in this process; returns what it printed."""

    def run(name: str, *arguments: object) -> str:
        code = run_tool(monkeypatch, name, *arguments)
        printed = capsys.readouterr()
        assert code == 0, printed.err
        return printed.out

    return run


def tool(name: str, *arguments: object) -> str:
    command = [sys.executable, str(REPOSITORY / "tools" / f"{name}.py"), *map(str, arguments)]
    done = subprocess.run(command, capture_output=True, text=True, cwd=REPOSITORY)
    assert done.returncode == 0, done.stderr
    return done.stdout


@pytest.mark.slow
def test_raw_recordings_become_a_table(tmp_path: Path, here: Callable[..., str]) -> None:
    raw, data = tmp_path / "raw", tmp_path / "data"
    raw.mkdir()
    write_table(raw / "scannetv2-labels.combined.tsv")
    for index, split in enumerate(("train", "val")):
        write_raw_scene(raw, f"scene000{index}_00", BoxRoom(index, 0.05))
        (raw / f"{split}.txt").write_text(f"scene000{index}_00\n")
    lists = ("--train-list", raw / "train.txt", "--val-list", raw / "val.txt")
    here("prepare_scannet", raw, data, *lists, "--workers", 1)
    config = write_config(tmp_path, data=data)
    # 4 views an epoch in one step of 4.
    settings = ["train.epochs=1", "train.batch_size=4", "evaluate.rotations=2", "evaluate.templates=['{}','a {}']"]
    assert "views captioned" in here("caption_views", config, "--model", "template")
    assert "nothing wrong" in here("check_data", config, "--workers", 1)
    assert "all there" in here("check_weights", config)
    assert "complete: 1 epochs, 1 steps" in tool("train", config, *settings)
    output = tmp_path / "evaluation"
    printed = tool("test", config, "newest", "protocol=reference", *settings, "--out", output)
    assert "hIoU" in printed and "protocol reference" in printed
    results = json.loads(next(output.rglob("results.json")).read_text())
    assert results["scenes"] == ["scene0001_00"] and 0 <= results["scores"]["fused"]["hiou"] <= 1
