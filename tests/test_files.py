import hashlib
import os
import resource
import signal
import stat
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import save_file

from xmask3d import files
from xmask3d.errors import UserError
from xmask3d.files import atomic_write, locked, newest, remove_leftovers, sha256_of


def names(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


@contextmanager
def file_limit(size: int) -> Iterator[None]:
    """Let no file grow beyond some bytes, which fails writes half way like a full disk."""
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    handler = signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, limits[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
        signal.signal(signal.SIGXFSZ, handler)


@pytest.mark.parametrize("sync", [True, False])
def test_text_bytes_and_callbacks_make_files_and_folders(tmp_path: Path, sync: bool) -> None:
    atomic_write(tmp_path / "deep" / "a.txt", "zwölf\n", sync=sync)
    assert (tmp_path / "deep" / "a.txt").read_bytes() == "zwölf\n".encode()
    atomic_write(tmp_path / "b", b"\0\n", sync=sync)
    assert (tmp_path / "b").read_bytes() == b"\0\n"
    atomic_write(tmp_path / "c.npy", lambda part: np.save(part, np.arange(3)), sync=sync)  # adds a suffix to others
    np.testing.assert_array_equal(np.load(tmp_path / "c.npy"), [0, 1, 2])
    assert names(tmp_path) == ["b", "c.npy", "deep"]


def test_a_failure_leaves_the_old_file_and_no_other(tmp_path: Path) -> None:
    path = tmp_path / "a.txt"
    path.write_text("old")

    def write(part: Path) -> None:
        part.write_text("half")
        raise ValueError

    with pytest.raises(ValueError):
        atomic_write(path, write)
    assert path.read_text() == "old" and names(tmp_path) == ["a.txt"]


@pytest.mark.parametrize("umask", [0o022, 0o027, 0o077])
def test_the_umask_decides_who_may_read(tmp_path: Path, umask: int) -> None:
    before = os.umask(umask)
    try:
        atomic_write(tmp_path / "text", "a")
        atomic_write(tmp_path / "weights", lambda part: save_file({"a": torch.zeros(1)}, part))
    finally:
        os.umask(before)
    for name in ("text", "weights"):
        assert stat.S_IMODE((tmp_path / name).stat().st_mode) == 0o666 & ~umask


@pytest.mark.parametrize("kind", ["bytes", "numpy", "torch", "safetensors"])
def test_a_file_that_grows_too_large_is_named_with_the_reason(tmp_path: Path, kind: str) -> None:
    values = torch.zeros(1_000_000)
    content = {
        "bytes": values.numpy().tobytes(),
        "numpy": lambda part: np.save(part, values.numpy()),
        "torch": lambda part: torch.save(values, part),
        "safetensors": lambda part: save_file({"a": values}, part),
    }[kind]
    path = tmp_path / "large.npy"
    path.write_text("old")
    with file_limit(200_000), pytest.raises(UserError, match=r"large\.npy: cannot .*File too large.*; use"):
        atomic_write(path, content, advice="use another disk")
    assert path.read_text() == "old" and names(tmp_path) == ["large.npy"]


def test_a_full_disk_and_a_file_for_a_folder_are_named(tmp_path: Path) -> None:
    if Path("/dev/full").exists():
        with pytest.raises(UserError, match=r"a: cannot be written \(No space left on device\)"):
            atomic_write(tmp_path / "a", lambda part: Path("/dev/full").write_bytes(b"0"))
    (tmp_path / "file").write_text("")
    with pytest.raises(UserError, match=r"b: cannot be written \((File exists|Not a directory)\)"):
        atomic_write(tmp_path / "file" / "b", "text")


def test_errors_that_are_not_the_systems_pass(tmp_path: Path) -> None:
    def fail(error: Exception) -> None:
        raise error

    for error in (OSError("bad data"), RuntimeError("of a network")):
        with pytest.raises(type(error), match=str(error)):
            atomic_write(tmp_path / "a", lambda part, error=error: fail(error))
    assert names(tmp_path) == []


def test_writers_of_one_file_do_not_meet(tmp_path: Path) -> None:
    path = tmp_path / "a.txt"

    def write(part: Path) -> None:
        atomic_write(path, "inner")
        part.write_text("outer")

    atomic_write(path, write)
    assert path.read_text() == "outer" and names(tmp_path) == ["a.txt"]


def test_a_killed_writer_leaves_a_hidden_file_that_can_be_removed(tmp_path: Path) -> None:
    program = (
        "import os, signal, sys; from pathlib import Path; from xmask3d.files import atomic_write\n"
        f"atomic_write(Path({str(tmp_path / 'a.txt')!r}), lambda part: os.kill(os.getpid(), signal.SIGKILL))"
    )
    assert subprocess.run([sys.executable, "-c", program]).returncode == -signal.SIGKILL
    (left,) = names(tmp_path)
    assert left.startswith(files.PART) and left.endswith(".txt")
    remove_leftovers(tmp_path)
    assert names(tmp_path) == []


def test_digests_of_files(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(files, "BLOCK", 3)
    for content in (b"", b"abc", b"abcd"):
        (tmp_path / "a").write_bytes(content)
        assert sha256_of(tmp_path / "a") == hashlib.sha256(content).hexdigest()


def test_a_folder_is_held_by_one_process(tmp_path: Path) -> None:
    script = (
        "import sys; from pathlib import Path; from xmask3d.files import locked\n"
        "from xmask3d.errors import UserError\n"
        "try:\n"
        "    with locked(Path(sys.argv[1]), 'a training'): print('held')\n"
        "except UserError as error: print(error)"
    )
    command = [sys.executable, "-c", script, str(tmp_path / "run")]
    with locked(tmp_path / "run", "a training"):
        second = subprocess.run(command, capture_output=True, text=True, check=True).stdout
    assert second == (
        f"{tmp_path / 'run'}: another process is at work there (a training); wait for it, or choose another folder\n"
    )
    assert subprocess.run(command, capture_output=True, text=True, check=True).stdout == "held\n"


def test_a_folder_is_free_once_its_process_is_killed_though_a_child_of_that_lives(tmp_path: Path) -> None:
    script = (
        "import os, signal, time; from pathlib import Path; from xmask3d.files import locked\n"
        f"with locked(Path({str(tmp_path)!r}), 'a training'):\n"
        "    child = os.fork()\n"
        "    if not child: time.sleep(60)\n"
        "    print(child, flush=True)\n"
        "    os.kill(os.getpid(), signal.SIGKILL)"
    )
    process = subprocess.Popen([sys.executable, "-c", script], stdout=subprocess.PIPE, text=True)
    assert process.stdout is not None
    child = int(process.stdout.readline())
    try:
        assert process.wait() == -signal.SIGKILL
        with locked(tmp_path, "a training"):
            pass
    finally:
        os.kill(child, signal.SIGKILL)
        process.stdout.close()


def test_a_folder_that_cannot_be_held_is_named(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(UserError, match="file/run: cannot be made"), locked(tmp_path / "file" / "run", "work"):
        pass


@pytest.mark.parametrize("reason", ["system", "disk"])
def test_a_place_without_locks_is_told_in_a_line(
    reason: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture
) -> None:
    def refuse(*arguments: object) -> None:
        raise OSError(95, "Operation not supported")

    if reason == "system":
        monkeypatch.setattr(files, "fcntl", None)
    else:
        monkeypatch.setattr(files.fcntl, "lockf", refuse)
    with locked(tmp_path, "a training"):
        pass
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith(f"warning: {tmp_path}: no locks on this system or disk") and "a training" in line
    assert names(tmp_path) == []


def test_files_of_processes_that_are_gone_are_removed_before_the_first_write(tmp_path: Path) -> None:
    program = (
        "import os, signal, sys; from pathlib import Path; from xmask3d.files import atomic_write\n"
        f"atomic_write(Path({str(tmp_path / 'a.txt')!r}), lambda part: os.kill(os.getpid(), signal.SIGKILL))"
    )
    assert subprocess.run([sys.executable, "-c", program]).returncode == -signal.SIGKILL
    (left,) = names(tmp_path)
    alive = f"{files.PART}{files._machine()}-{os.getpid()}-{'0' * 16}.txt"
    other_machine = f"{files.PART}{'0' * 8}-{left.split('-')[2]}-{'0' * 16}.txt"
    for name in (alive, other_machine):
        (tmp_path / name).touch()
    atomic_write(tmp_path / "b.txt", "text")
    assert names(tmp_path) == sorted([alive, other_machine, "b.txt"])


def test_the_newest_of_files_by_a_clock_that_may_be_wrong(tmp_path: Path) -> None:
    first, second, third = (tmp_path / name for name in "abc")
    for path, age in ((first, 30), (second, 20), (third, 10)):
        path.touch()
        os.utime(path, (time.time() - age, time.time() - age))
    assert newest([third, first, second], "name one") == third
    os.utime(second, ns=(third.stat().st_mtime_ns,) * 2)
    with pytest.raises(UserError, match=r"was written at the same time as .*; name one"):
        newest([first, second, third], "name one")
    os.utime(first, (time.time() + 3600, time.time() + 3600))
    with pytest.raises(UserError, match=rf"{first}: was written in the future"):
        newest([first, second, third], "name one")
    assert newest([first], "name one") == first
