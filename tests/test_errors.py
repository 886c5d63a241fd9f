"""How tools end."""

import errno
import os
import subprocess
import sys
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context
from pathlib import Path

import pytest
from torch.utils.data import DataLoader, Dataset

from xmask3d.errors import UserError, first_line, run_tool, some
from xmask3d.resources import REPOSITORY


class Damaged(Dataset):
    """Its only item cannot be read."""

    def __len__(self) -> int:
        return 1

    def __getitem__(self, index: int) -> int:
        raise UserError("depth/0.png: truncated; fetch it again")


FAILING = """
import gc
from tests.test_errors import Damaged
from torch.utils.data import DataLoader
from xmask3d.engine.batches import ignore_signals
from xmask3d.errors import run_tool
gc.disable()
run_tool(lambda: list(DataLoader(Damaged(), num_workers=1, worker_init_fn=ignore_signals)) and None)
"""


@pytest.mark.slow
def test_a_failure_in_a_loader_process_does_not_keep_the_command_from_ending() -> None:
    done = subprocess.run([sys.executable, "-c", FAILING], capture_output=True, text=True, timeout=300, cwd=REPOSITORY)
    assert done.returncode == 1 and done.stderr.splitlines()[-1] == "error: depth/0.png: truncated; fetch it again"


@pytest.mark.parametrize("workers", [0, 1])
def test_errors_of_loader_processes_are_one_line(workers: int, capsys: pytest.CaptureFixture) -> None:
    with pytest.raises(SystemExit) as ended:
        run_tool(lambda: list(DataLoader(Damaged(), num_workers=workers)) and None)
    assert ended.value.code == 1
    assert capsys.readouterr().err == "error: depth/0.png: truncated; fetch it again\n"


def test_a_killed_worker_is_one_line(capsys: pytest.CaptureFixture) -> None:
    def work() -> None:
        with ProcessPoolExecutor(1, mp_context=get_context("spawn")) as pool:
            list(pool.map(os._exit, [1]))

    with pytest.raises(SystemExit) as ended:
        run_tool(work)
    assert ended.value.code == 1
    error = capsys.readouterr().err
    assert error.startswith("error: a worker was killed, perhaps for want of memory; start again") and error[-1] == "\n"
    assert error.count("\n") == 1


def test_what_the_system_refuses_is_one_line(capsys: pytest.CaptureFixture) -> None:
    def full() -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), "runs/x/train.log")

    with pytest.raises(SystemExit) as ended:
        run_tool(full)
    assert ended.value.code == 1
    assert capsys.readouterr().err == (
        "error: runs/x/train.log: No space left on device; what was saved before is intact\n"
    )


@pytest.mark.parametrize("kind", [errno.EEXIST, errno.EISDIR, errno.ENOTDIR, errno.ENAMETOOLONG])
def test_files_in_the_place_of_folders_are_one_line(kind: int, capsys: pytest.CaptureFixture) -> None:
    def refused() -> None:
        raise OSError(kind, os.strerror(kind), "out/labels.ply")

    with pytest.raises(SystemExit) as ended:
        run_tool(refused)
    assert ended.value.code == 1
    assert capsys.readouterr().err == f"error: out/labels.ply: {os.strerror(kind)}; what was saved before is intact\n"


def test_other_errors_keep_their_traceback(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError):
        run_tool(lambda: (tmp_path / "none").read_text() and None)
    with pytest.raises(ZeroDivisionError):
        run_tool(lambda: 1 // 0)


def test_codes(capsys: pytest.CaptureFixture) -> None:
    def interrupted() -> None:
        raise KeyboardInterrupt

    for main, code in ((lambda: None, 0), (lambda: 143, 143), (interrupted, 130)):
        with pytest.raises(SystemExit) as ended:
            run_tool(main)
        assert ended.value.code == code
    assert capsys.readouterr().err == "stopped by the user\n"


def test_messages_of_others_are_one_short_line() -> None:
    assert first_line(ValueError("\n too large\nin three lines")) == "too large"
    assert first_line(IndexError()) == "IndexError" and first_line(ValueError("x" * 300), 9) == "x" * 9
    assert first_line(OSError(errno.ENOENT, "No such file", "a.pt")) == "No such file"
    assert some(["a", "b"], 2) == "a, b" and some([1, 2, 3], 2) == "1, 2, ..."


def test_names_of_files_cannot_steer_the_terminal(capsys: pytest.CaptureFixture) -> None:
    def fail() -> None:
        raise UserError("no\nsuch\x1b[31m bü\x9bro: missing")

    with pytest.raises(SystemExit):
        run_tool(fail)
    assert capsys.readouterr().err == "error: no\\nsuch\\x1b[31m bü\\x9bro: missing\n"
