"""Number of helper processes that this machine allows, and this process's share of a job."""

import multiprocessing
import os
import shutil
import sys
from functools import cache
from pathlib import Path

from xmask3d.errors import UserError

NEEDED = 16 << 20
"""Shared memory required for helpers, in bytes: a few small batches."""

_MEMORY = Path("/dev/shm")


def allowed_workers(wanted: int, alone: int = 0) -> int:
    """Return the number of helper processes to start; results do not depend on it.

    Args:
        wanted: requested number.
        alone: number that means no helpers, if shared memory, which they need for locks and arrays, is missing.
    """
    if wanted > alone and (problem := _problem()):
        _warn(f"warning: shared memory cannot be used ({problem}); work continues in one process, more slowly")
        return alone
    return wanted


def array_share() -> tuple[int, int]:
    """Return this task's index in its SLURM array, from 0, and the number of tasks; (0, 1) outside an array.

    Raises:
        UserError: the numbers of the array are not evenly spaced, such as 1,2,7.
    """
    first, last, task, step, count = (
        int(os.environ.get(f"SLURM_ARRAY_TASK_{name}") or default)
        for name, default in (("MIN", 0), ("MAX", 0), ("ID", 0), ("STEP", 1), ("COUNT", 1))
    )
    number = (task - first) // max(1, step)
    if (last - first) // max(1, step) + 1 != count or not 0 <= number < count:
        raise UserError(f"SLURM array of {count} tasks from {first} to {last}: number them evenly, as --array=0-7")
    return number, count


def work_share() -> tuple[int, int]:
    """Return this process's index among all that share a job, from 0, and their number.

    The processes are those of torchrun, of a SLURM array, or of torchrun in every task of an array.
    """
    task, tasks = array_share()
    rank, ranks = int(os.environ.get("RANK", 0)), int(os.environ.get("WORLD_SIZE", 1))
    return task * ranks + rank, tasks * ranks


def _problem() -> str | None:
    """Return the reason why helper processes would fail, or None."""
    try:
        multiprocessing.Lock()
        if _MEMORY.is_dir() and (free := shutil.disk_usage(_MEMORY).free) < NEEDED:
            return f"{free >> 20} MB are free in {_MEMORY}"
    except OSError as error:
        return f"{error.strerror or error}"
    return None


@cache
def _warn(line: str) -> None:
    """Print a line, but only once."""
    print(line, file=sys.stderr)
