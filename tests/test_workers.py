"""Machines without shared memory, where helper processes would fail: work continues without them."""

import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from tests.helpers.tiny import write_config
from xmask3d import workers
from xmask3d.errors import UserError
from xmask3d.resources import REPOSITORY
from xmask3d.workers import allowed_workers, array_share, work_share


@pytest.fixture(autouse=True)
def new_warnings() -> None:
    workers._warn.cache_clear()


def test_as_many_as_wanted_where_memory_is_shared(capsys: pytest.CaptureFixture) -> None:
    assert allowed_workers(0) == 0 and allowed_workers(3) == 3 and allowed_workers(1, alone=1) == 1
    assert not capsys.readouterr().err


@pytest.mark.parametrize("kind", ["no locks", "little"])
def test_none_where_it_is_not(kind: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture) -> None:
    def refuse() -> None:
        raise OSError(38, "Function not implemented")

    if kind == "no locks":
        monkeypatch.setattr(workers.multiprocessing, "Lock", refuse)
    else:
        monkeypatch.setattr(workers, "NEEDED", 1 << 62)
        if not workers._MEMORY.is_dir():
            pytest.skip("no /dev/shm here")
    assert allowed_workers(3) == 0 and allowed_workers(3, alone=1) == 1 and allowed_workers(0) == 0
    (line,) = capsys.readouterr().err.splitlines()  # once
    assert line.startswith("warning: shared memory cannot be used (") and "one process" in line


def test_shares_of_arrays_and_of_torchrun(monkeypatch: pytest.MonkeyPatch) -> None:
    assert array_share() == work_share() == (0, 1)
    monkeypatch.setenv("RANK", "1")
    monkeypatch.setenv("WORLD_SIZE", "4")
    assert array_share() == (0, 1) and work_share() == (1, 4)
    for name, value in {"MIN": 5, "MAX": 11, "STEP": 3, "COUNT": 3, "ID": 8}.items():
        monkeypatch.setenv(f"SLURM_ARRAY_TASK_{name}", str(value))
    assert array_share() == (1, 3) and work_share() == (5, 12)
    monkeypatch.setenv("SLURM_ARRAY_TASK_COUNT", "2")  # as --array=5,11 has it
    with pytest.raises(UserError, match="SLURM array of 2 tasks from 5 to 11: number them evenly"):
        array_share()


@pytest.mark.slow
def test_a_training_without_shared_memory(tmp_path: Path) -> None:
    mount = "mount -t tmpfs -o size=4k,ro none /dev/shm"
    inside = ["unshare", "-m", "sh", "-c"]
    if not shutil.which("unshare") or subprocess.run([*inside, mount], capture_output=True).returncode:
        pytest.skip("needs the right to mount")
    config = write_config(tmp_path)
    command = f"{mount} && {sys.executable} -m xmask3d train {config} train.epochs=1 data.workers=2"
    done = subprocess.run([*inside, command], capture_output=True, text=True, cwd=REPOSITORY)
    assert done.returncode == 0, done.stderr
    assert "warning: shared memory cannot be used" in done.stderr and "complete: 1 epochs" in done.stdout


def test_every_loader_asks_how_many_helpers_are_allowed() -> None:
    texts = {path.name: path.read_text("utf-8") for path in (REPOSITORY / "xmask3d").rglob("*.py")}
    asked = r"num_workers=allowed_workers\(|workers = allowed_workers\((?s:.*)num_workers=workers"
    assert not [name for name, text in texts.items() if "num_workers=" in text and not re.search(asked, text)]
