"""Folders that cannot be written: data are only read, and an output that must be written is refused in one line."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests.helpers.tiny import write_config
from xmask3d.resources import REPOSITORY

NOBODY = 65534
PROGRAM = (
    "import os, sys\n"
    f"if os.geteuid() == 0: os.setgroups([]); os.setgid({NOBODY}); os.setuid({NOBODY})\n"
    "from xmask3d.cli.main import main\n"
    "main(sys.argv[1:])"
)


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Folder whose content anybody may read, and nobody but root write, but for `own`."""
    root = tmp_path_factory.mktemp("read-only")
    write_config(root / "made")
    (root / "own").mkdir()
    (root / "closed").mkdir()
    for folder in (root, *root.parents):
        if folder.stat().st_uid == os.geteuid():
            folder.chmod(folder.stat().st_mode | 0o055)
    for path in root.rglob("*"):
        path.chmod(0o555 if path.is_dir() else 0o444)
    (root / "own").chmod(0o777)
    yield root
    for path in (*root.rglob("*"), root):
        path.chmod(0o755)


def as_nobody(*arguments: object) -> subprocess.CompletedProcess:
    environment = {"HOME": "/nonexistent", "PATH": os.environ["PATH"], "OMP_NUM_THREADS": "1"}
    command = [sys.executable, "-c", PROGRAM, *map(str, arguments)]
    done = subprocess.run(command, capture_output=True, text=True, cwd=REPOSITORY, env=environment)
    if "Permission denied" in done.stderr and "xmask3d" in done.stderr and "ModuleNotFound" in done.stderr:
        pytest.skip("another user may not read this program")
    return done


def refused(done: subprocess.CompletedProcess, path: Path) -> None:
    assert done.returncode == 1, done.stderr
    errors = [line for line in done.stderr.splitlines() if line.startswith("error: ")]
    assert len(errors) == 1 and str(path) in errors[0], done.stderr
    assert "Traceback" not in done.stderr


@pytest.mark.slow
def test_a_run_reads_closed_data_and_writes_elsewhere(place: Path) -> None:
    config, run = place / "made" / "tiny.yaml", place / "own" / "run"
    done = as_nobody("train", config, f"output={run}", "train.epochs=1", "train.evaluate_every=1")
    assert done.returncode == 0, done.stderr
    refused(as_nobody("train", config, f"output={place / 'closed' / 'run'}"), place / "closed")
    refused(as_nobody("train", config, f"output={run}-2", f"data.cache={place / 'closed'}",
                      "train.keep_encodings=true"), place / "closed")  # fmt: skip
    checkpoint = run / "checkpoints" / "best.pt"
    refused(as_nobody("evaluate", config, checkpoint, "--out", place / "closed"), place / "closed")
    scan = place / "made" / "data" / "scannet_2d" / "scene0002_00"
    known = ["--query", "bed", "floor", "--checkpoint", checkpoint, "--config", run / "config.yaml"]
    refused(as_nobody("segment", scan, *known, "--out", place / "closed" / "a"), place / "closed")
    refused(as_nobody("export", run, place / "closed" / "model"), place / "closed")
