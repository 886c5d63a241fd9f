"""Raw ScanNet recordings to a table of scores, by the commands that a user runs."""

import json
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.helpers.command import run_command
from tests.helpers.raw_scannet import write_raw_scene, write_table
from tests.helpers.runs import command_run, run
from tests.helpers.scenes import BoxRoom
from tests.helpers.tiny import write_config


@pytest.fixture
def here(capsys: pytest.CaptureFixture[str]) -> Callable[..., str]:
    """Runs a command that leaves no state in this process; returns what it printed."""

    def run(*arguments: object) -> str:
        code = run_command(*arguments)
        printed = capsys.readouterr()
        assert code == 0, printed.err
        return printed.out

    return run


def apart(log: Path, *arguments: object) -> str:
    """Run a command in a process of its own; returns what it printed."""
    assert run(command_run, [str(argument) for argument in arguments], log=log) == 0, log.read_text()
    return log.read_text()


@pytest.mark.slow
def test_raw_recordings_become_a_table(tmp_path: Path, here: Callable[..., str]) -> None:
    raw, data = tmp_path / "raw", tmp_path / "data"
    raw.mkdir()
    write_table(raw / "scannetv2-labels.combined.tsv")
    for index, split in enumerate(("train", "val")):
        write_raw_scene(raw, f"scene000{index}_00", BoxRoom(index, 0.05))
        (raw / f"{split}.txt").write_text(f"scene000{index}_00\n")
    lists = ("--train-list", raw / "train.txt", "--val-list", raw / "val.txt")
    here("prepare", raw, data, *lists, "--workers", 1)
    config = write_config(tmp_path, data=data)
    # 4 views an epoch in one step of 4.
    settings = ["train.epochs=1", "train.batch_size=4", "evaluate.rotations=2", "evaluate.templates=['{}','a {}']"]
    assert "views captioned" in here("caption", config, "--model", "template")
    checked = here("check", config, "--workers", 1)
    assert "nothing wrong" in checked and "all weights are there" in checked
    assert "complete: 1 epochs, 1 steps" in apart(tmp_path / "train.log", "train", config, *settings)
    output = tmp_path / "evaluation"
    printed = apart(
        tmp_path / "evaluate.log", "evaluate", config, "newest", "protocol=reference", *settings, "--out", output
    )
    assert "hIoU" in printed and "protocol reference" in printed
    results = json.loads(next(output.rglob("results.json")).read_text())
    assert results["scenes"] == ["scene0001_00"] and 0 <= results["scores"]["fused"]["hiou"] <= 1
