"""Settings of the C library and torch for freed memory on a CPU.

Fresh memory costs page faults, while kept memory is occupied without use. Blocks below `LARGE` bytes are kept for the
next step, which needs them again. Larger blocks are returned to the system at once, and are allocated in huge pages,
which cost little. For large networks, whose steps take many seconds, far smaller blocks are returned too.
"""

import ctypes
import os
from collections.abc import Callable
from pathlib import Path

LARGE = 32 << 20
LARGE_OF_LARGE_NETWORKS = 4 << 20
_M_TRIM_THRESHOLD, _M_MMAP_THRESHOLD = -1, -3  # parameters of glibc's mallopt
_NEVER_TRIM = (1 << 31) - 1
_HUGE_PAGES = Path("/sys/kernel/mm/transparent_hugepage/enabled")


def environment() -> dict[str, str]:
    """Return the environment variables that apply these settings from the start of a process, for any C library."""
    return {
        "MALLOC_MMAP_THRESHOLD_": str(_threshold()),
        "MALLOC_TRIM_THRESHOLD_": str(_NEVER_TRIM),
        "THP_MEM_ALLOC_ENABLE": "1",
    }


def keep_freed_memory() -> None:
    """Apply the settings to this process; torch's part only has an effect before its first tensor. Needs glibc."""
    os.environ.setdefault("THP_MEM_ALLOC_ENABLE", "1")
    mallopt = _function("mallopt")
    if mallopt:
        mallopt(_M_MMAP_THRESHOLD, _threshold())
        mallopt(_M_TRIM_THRESHOLD, _NEVER_TRIM)


def keep_little_freed_memory() -> None:
    """Return kept memory to the system, and in future all blocks of at least `LARGE_OF_LARGE_NETWORKS` bytes."""
    mallopt, trim = _function("mallopt"), _function("malloc_trim")
    if mallopt:
        mallopt(_M_MMAP_THRESHOLD, _threshold(LARGE_OF_LARGE_NETWORKS))
    if trim:
        trim(0)


def _threshold(large: int = LARGE) -> int:
    try:
        never = "[never]" in _HUGE_PAGES.read_text(encoding="utf-8")
    except OSError:
        never = True
    return 1 << 30 if never else large


def _function(name: str) -> Callable[..., int] | None:
    try:
        return getattr(ctypes.CDLL("libc.so.6"), name)
    except (OSError, AttributeError):
        return None  # another C library, which has its own rules
