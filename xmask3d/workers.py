"""Helper processes that this machine allows: they exchange locks and arrays in shared memory, which may be missing."""

import multiprocessing
import shutil
import sys
from functools import cache
from pathlib import Path

NEEDED = 16 << 20
"""Bytes of shared memory without which none is started: a few small batches."""

_MEMORY = Path("/dev/shm")


def allowed_workers(wanted: int, alone: int = 0) -> int:
    """Return the number of helper processes to start; results do not depend on it.

    Args:
        wanted: number asked for.
        alone: number that means none, all work being done in this process.
    """
    if wanted > alone and (problem := _problem()):
        _warn(f"warning: shared memory cannot be used ({problem}); work goes on in one process, more slowly")
        return alone
    return wanted


def _problem() -> str | None:
    """Return the reason for which helper processes would fail; None if they would not."""
    try:
        multiprocessing.Lock()
        if _MEMORY.is_dir() and (free := shutil.disk_usage(_MEMORY).free) < NEEDED:
            return f"{free >> 20} MB are free in {_MEMORY}"
    except OSError as error:
        return f"{error.strerror or error}"
    return None


@cache
def _warn(line: str) -> None:
    """Print a line, once."""
    print(line, file=sys.stderr)
