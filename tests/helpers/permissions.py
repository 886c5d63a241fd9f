"""Permissions that bind: tests that run as root give up its powers for a while, so that closed folders are closed."""

import ctypes
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

_VERSION = 0x20080522


class _Header(ctypes.Structure):
    _fields_ = [("version", ctypes.c_uint32), ("process", ctypes.c_int)]


class _Powers(ctypes.Structure):
    _fields_ = [("effective", ctypes.c_uint32), ("permitted", ctypes.c_uint32), ("inheritable", ctypes.c_uint32)]


@contextmanager
def closed(*folders: Path) -> Iterator[None]:
    """Let nobody write to folders or to anything in them; this thread and its children lay down root's powers."""
    paths = [path for folder in folders for path in (folder, *folder.rglob("*")) if not path.is_symlink()]
    modes = [path.stat().st_mode & 0o777 for path in paths]
    for path, mode in zip(paths, modes, strict=True):
        path.chmod(mode & 0o555)
    try:
        with _without_powers():
            yield
    finally:
        for path, mode in zip(paths, modes, strict=True):
            path.chmod(mode)


@contextmanager
def _without_powers() -> Iterator[None]:
    if not hasattr(os, "geteuid") or os.geteuid() != 0:
        yield
        return
    system = ctypes.CDLL(None, use_errno=True)
    header, powers = _Header(_VERSION, 0), (_Powers * 2)()

    def change(call: str) -> None:
        if getattr(system, call)(ctypes.byref(header), powers):
            raise OSError(ctypes.get_errno(), call)

    change("capget")
    kept = [power.effective for power in powers]
    for power in powers:
        power.effective = 0
    change("capset")
    try:
        yield
    finally:
        for power, effective in zip(powers, kept, strict=True):
            power.effective = effective
        change("capset")
