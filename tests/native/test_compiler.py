"""Compiling once, keeping the result, and doing without."""

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from xmask3d.errors import UserError
from xmask3d.native import compiler as build
from xmask3d.native.compiler import BuildError, load_library
from xmask3d.sparse.native.kernels import failure

compiled = pytest.mark.skipif(bool(failure()), reason=failure())
ROOT = Path(__file__).parents[2]


@pytest.fixture
def folders(tmp_path, monkeypatch) -> list[Path]:
    """Cache folders of this test, made when used."""
    chosen = [tmp_path / "first", tmp_path / "second"]
    monkeypatch.setattr(build, "_cache_folders", lambda: chosen)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "home"))
    return chosen


@pytest.fixture
def compiler(tmp_path, monkeypatch) -> Path:
    """A stand-in for the compiler that copies the library compiled before; returns its diary, a line a call."""
    library = tmp_path / "library.so"
    shutil.copy(load_library()._name, library)
    diary, program = tmp_path / "diary", tmp_path / "compiler"
    copy = 'while [ "$1" != -o ]; do shift; done; sleep 0.5; cp "$LIBRARY" "$2"'
    program.write_text(f"#!/bin/sh\necho call >> {diary}\n{copy}\n")
    program.chmod(0o755)
    monkeypatch.setenv("CXX", str(program))
    monkeypatch.setenv("LIBRARY", str(library))
    return diary


@compiled
def test_the_library_is_compiled_once_and_kept(compiler, folders) -> None:
    for _ in range(2):
        assert load_library().xm_lanes() in (4, 8, 16)
    assert compiler.read_text() == "call\n"
    assert len(list(folders[0].glob("*.so"))) == 1
    assert not folders[1].exists()


@compiled
def test_processes_that_start_together_compile_once(compiler, tmp_path, monkeypatch) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "home"))
    program = "from xmask3d.native.compiler import load_library; print(load_library().xm_lanes())"
    command = [sys.executable, "-c", program]
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    both = [subprocess.Popen(command, env=environment, stdout=subprocess.PIPE, text=True) for _ in range(2)]
    assert len({process.communicate()[0] for process in both}) == 1
    assert [process.returncode for process in both] == [0, 0]
    assert compiler.read_text() == "call\n"


@compiled
def test_a_folder_that_cannot_be_written_is_passed_over(compiler, folders) -> None:
    folders[0].write_text("a file where the folder should be")
    assert load_library().xm_lanes()
    assert list(folders[1].glob("*.so"))


@compiled
def test_without_any_folder_the_library_is_compiled_for_this_process(compiler, folders) -> None:
    for folder in folders:
        folder.write_text("")
    assert load_library().xm_lanes()
    assert compiler.read_text() == "call\n"


@compiled
def test_a_full_folder_is_passed_over_and_nothing_compiled_twice(compiler, folders, monkeypatch) -> None:
    write = build.atomic_write

    def fail_in_the_first(target: Path, content: bytes) -> None:
        if target.parent == folders[0]:
            raise UserError(f"{target}: cannot be written (No space left on device)")
        write(target, content)

    monkeypatch.setattr(build, "atomic_write", fail_in_the_first)
    assert load_library().xm_lanes()
    assert [path.suffix for path in folders[1].iterdir() if path.suffix == ".so"] == [".so"]
    assert compiler.read_text() == "call\n"


@compiled
def test_a_compiler_that_does_not_finish_is_not_asked_again(folders, tmp_path, monkeypatch) -> None:
    program, diary = tmp_path / "compiler", tmp_path / "diary"
    program.write_text(f"#!/bin/sh\necho call >> {diary}\nexec sleep 20\n")
    program.chmod(0o755)
    monkeypatch.setenv("CXX", str(program))
    monkeypatch.setattr(build, "_SECONDS", 0.5)
    with pytest.raises(BuildError, match=r"does not finish in 0\.5 s"):
        load_library()
    assert diary.read_text() == "call\n"


@compiled
def test_a_folder_that_others_can_write_is_not_trusted(compiler, folders) -> None:
    folders[0].mkdir()
    folders[0].chmod(0o777)
    assert load_library().xm_lanes()
    assert not list(folders[0].iterdir())


@compiled
def test_a_damaged_library_is_passed_over(compiler, folders) -> None:
    folders[0].mkdir(mode=0o700)
    (folders[0] / f"sparse-{build._digest()}.so").write_bytes(b"not a library")
    assert load_library().xm_lanes()
    assert list(folders[1].glob("*.so"))


def test_no_compiler_is_said_so(folders, monkeypatch) -> None:
    monkeypatch.setenv("PATH", "")
    monkeypatch.delenv("CXX", raising=False)
    with pytest.raises(BuildError, match=r"no C\+\+ compiler found"):
        load_library()


def test_a_compiler_that_fails_is_quoted(folders, tmp_path, monkeypatch) -> None:
    program = tmp_path / "compiler"
    program.write_text("#!/bin/sh\necho 'x.cpp:1: error: not today' >&2\nexit 1\n")
    program.chmod(0o755)
    monkeypatch.setenv("CXX", str(program))
    with pytest.raises(BuildError, match=r"fails: x\.cpp:1: error: not today"):
        load_library()


def test_a_machine_without_compiler_falls_back_to_torch(tmp_path) -> None:
    program = (
        "import torch, tempfile; tempfile.tempdir = '/proc/none'\n"
        "from xmask3d.sparse import coordinate_manager\n"
        "print(type(coordinate_manager(torch.zeros(1, 4, dtype=torch.int32))).__name__)\n"
    )
    environment = {"PYTHONPATH": str(ROOT), "XDG_CACHE_HOME": str(tmp_path), "PATH": ""}
    done = subprocess.run([sys.executable, "-c", program], env=environment, capture_output=True, text=True, check=False)
    assert done.stdout.strip() == "TorchCoordinateManager", done.stderr
