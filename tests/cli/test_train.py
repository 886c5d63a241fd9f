"""The commands as a user runs them: exit codes, one-line errors, torchrun behind the scripts."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests.helpers.runs import command_run, run
from tests.helpers.tiny import write_config
from xmask3d.resources import REPOSITORY

ENVIRONMENT = {**os.environ, "PYTHONPATH": str(REPOSITORY), "OMP_NUM_THREADS": "1"}


def command(*arguments: object, **environment: str) -> subprocess.CompletedProcess:
    return subprocess.run(
        [str(argument) for argument in arguments],
        capture_output=True, text=True, timeout=900, cwd="/", env={**ENVIRONMENT, **environment},
    )  # fmt: skip


@pytest.mark.parametrize("tool", ["train.py", "test.py"])
def test_help_and_mistakes_come_at_once(tool: str, tmp_path: Path) -> None:
    path = REPOSITORY / "tools" / tool
    shown = command(sys.executable, path, "--help")
    assert shown.returncode == 0 and "key=value" in shown.stdout
    extra = ["newest"] if tool == "test.py" else []
    wrong = command(sys.executable, path, "config/scannet/B15N4.yaml", *extra, "train.epoch=3")
    assert wrong.returncode == 1 and "did you mean 'epochs'?" in wrong.stderr
    assert len(wrong.stderr.strip().splitlines()) == 1
    missing = command(sys.executable, path, tmp_path / "no.yaml", *extra)
    assert missing.returncode == 1 and "no.yaml" in missing.stderr and "Traceback" not in missing.stderr


@pytest.mark.parametrize("script", ["train.sh", "eval.sh"])
def test_scripts_explain_themselves(script: str) -> None:
    shown = command("sh", REPOSITORY / "scripts" / script, "--help")
    assert shown.returncode == 0 and f"sh scripts/{script} CONFIG" in shown.stdout and "NPROC" in shown.stdout
    without = command("sh", REPOSITORY / "scripts" / script, "x.yaml", XMASK3D_VENV="/nowhere")
    assert without.returncode == 1 and "XMASK3D_VENV" in without.stderr


def test_a_mistake_stays_one_line_in_two_processes(tmp_path: Path) -> None:
    venv = Path(sys.executable).parent.parent
    config, missing = write_config(tmp_path), f"data.root={tmp_path / 'nowhere'}"
    failed = command(
        "sh", REPOSITORY / "scripts" / "train.sh", config, missing, NPROC="2", XMASK3D_VENV=str(venv)
    )  # fmt: skip
    assert failed.returncode == 1 and "Traceback" not in failed.stderr
    lines = {line for line in failed.stderr.splitlines() if "nowhere" in line}
    assert len(lines) == 1 and lines.pop().startswith("error: ")


@pytest.mark.slow
@pytest.mark.timeout(2400)
def test_from_training_to_a_table_by_two_processes(tmp_path: Path) -> None:
    config = write_config(tmp_path)
    venv = Path(sys.executable).parent.parent
    train, logs = ["train", str(config), "train.epochs=1"], [tmp_path / "first", tmp_path / "again"]
    assert run(command_run, train, processes=2, log=logs[0]) == 0, logs[0].read_text()
    assert "2 process(es) on cpu" in logs[0].read_text() and "complete: 1 epochs, 4 steps" in logs[0].read_text()
    assert run(command_run, train, log=logs[1]) == 0 and "complete" in logs[1].read_text()
    two = {"NPROC": "2", "XMASK3D_VENV": str(venv)}
    tested = command("sh", REPOSITORY / "scripts" / "eval.sh", config, "newest", "--pictures", 1, "seed=1", **two)
    assert tested.returncode == 0, tested.stderr
    assert "hIoU" in tested.stdout and tested.stdout.count("toilet") == 1
    folder = Path(tested.stdout.split("results:")[1].strip())
    assert len(list((folder / "scenes").iterdir())) == 2 and len(list((folder / "pictures").iterdir())) == 1
