"""The rules of freed memory, seen in a process of their own."""

import os
import platform
import subprocess
import sys
from pathlib import Path

import pytest

from xmask3d import memory

ROOT = Path(__file__).parents[1]
PROGRAM = """
import torch
from xmask3d.memory import LARGE, keep_freed_memory, keep_little_freed_memory
def resident():
    return int(open("/proc/self/statm").read().split()[1]) * 4096
{start}
torch.ones(1)
start = resident()
large = torch.ones(2 * LARGE // 4)
small = [torch.ones(LARGE // 16) for _ in range(32)]  # LARGE / 4 bytes each
last = torch.ones(1000)  # so that nothing is at the heap's end
del large
one = resident() - start
del small
two = resident() - start
keep_little_freed_memory()
three = resident() - start
small = [torch.ones(LARGE // 16) for _ in range(32)]
last = torch.ones(1000)
del small
print(*(size / LARGE for size in (one, two, three, resident() - start)))
"""


def shares(start: str, **variables: str) -> list[float]:
    command = [sys.executable, "-c", PROGRAM.format(start=start)]
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1", **variables}
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=True)
    return [float(word) for word in done.stdout.split()]


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="rules of the GNU C library")
@pytest.mark.skipif(memory._threshold() != memory.LARGE, reason="no huge pages here")
@pytest.mark.parametrize("by_variables", [False, True])
def test_large_blocks_go_back_and_small_ones_where_little_is_kept(by_variables: bool) -> None:
    variables = memory.environment() if by_variables else {}
    large_gone, small_gone, released, kept_later = shares("" if by_variables else "keep_freed_memory()", **variables)
    assert 7.5 < large_gone < 9.0
    assert 7.5 < small_gone < 9.0
    assert released < 0.5
    assert kept_later < 2  # what freed blocks had room for stays


def test_without_huge_pages_everything_is_kept(tmp_path, monkeypatch) -> None:
    setting = tmp_path / "enabled"
    monkeypatch.setattr(memory, "_HUGE_PAGES", setting)
    assert memory._threshold() == 1 << 30
    setting.write_text("always madvise [never]\n")
    assert memory._threshold() == 1 << 30
    setting.write_text("always [madvise] never\n")
    assert memory._threshold() == memory.LARGE


def test_another_c_library_is_left_alone(monkeypatch) -> None:
    def missing(name: str) -> None:
        raise OSError(f"{name}: cannot open shared object file")

    monkeypatch.setattr(memory.ctypes, "CDLL", missing)
    memory.keep_freed_memory()
    memory.keep_little_freed_memory()
