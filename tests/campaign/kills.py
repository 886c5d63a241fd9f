"""Death at a file operation: a process counts what it does to files below a folder, and kills itself at a number.

Counted are opening for writing, writes (those in a row to one file as one), fsync, rename, link, removal, and changes
of folders and permissions. A process that dies in a write leaves half of it.
"""

import builtins
import io
import os
import signal
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

CHANGES = {
    "os.rename": ((0, 2), (1, 3)),  # places of paths and of their folders' descriptors in the arguments
    "os.link": ((0, 2), (1, 3)),
    "os.remove": ((0, 1),),
    "os.rmdir": ((0, 1),),
    "os.mkdir": ((0, 2),),
    "os.chmod": ((0, 2),),
    "os.truncate": ((0, None),),
}
WRITING = os.O_WRONLY | os.O_RDWR | os.O_CREAT | os.O_TRUNC | os.O_APPEND
UNCOUNTED = "tensorboard"  # written by a thread, at no certain moment, and read by nobody here


class Operations:
    """Counter of the operations of this process below `root`, each a line of `journal`; the last kills it.

    Args:
        root: folder that is watched.
        journal: file that gets a line for each operation.
        last: number of the operation, from 0, in which the process dies; None for none.
    """

    def __init__(self, root: Path, journal: Path, last: int | None) -> None:
        self.root, self.last, self.done = os.path.realpath(root), last, 0
        self.journal = os.open(journal, os.O_WRONLY | os.O_CREAT | os.O_TRUNC)
        self.process, self.before = os.getpid(), ("", "")
        self.plain_open = io.open

    def watch(self) -> None:
        """Count from here on."""
        sys.addaudithook(self._audit)
        plain_sync = os.fsync

        def sync(descriptor: int) -> None:
            self.count("fsync", _path_of(descriptor))
            plain_sync(descriptor)

        os.fsync = sync  # type: ignore[assignment]
        builtins.open = io.open = self._open  # type: ignore[assignment]

    def count(self, operation: str, path: str, half: Callable[[], object] = lambda: None) -> None:
        """Note an operation, and die in it if it is the last: `half` is what is done of it."""
        if not path.startswith(self.root + os.sep) or UNCOUNTED in path or os.getpid() != self.process:
            return
        if operation == "write" and self.before == (operation, path):
            return
        self.before = (operation, path)
        os.write(self.journal, f"{operation} {path[len(self.root) + 1 :]}\n".encode())
        if self.done == self.last:
            half()
            os.kill(os.getpid(), signal.SIGKILL)
        self.done += 1

    def _audit(self, event: str, arguments: tuple) -> None:
        if event == "open":
            path, _, flags = arguments
            if isinstance(path, str | bytes | os.PathLike) and isinstance(flags, int) and flags & WRITING:
                self.count("open", os.path.realpath(os.fsdecode(path)))
        for path, folder in CHANGES.get(event, ()):
            base = arguments[folder] if folder is not None and len(arguments) > folder else -1
            name = os.fsdecode(arguments[path]) if not isinstance(arguments[path], int) else _path_of(arguments[path])
            above = _path_of(base) if isinstance(base, int) and base >= 0 else os.getcwd()
            whole = os.path.join(above, name)
            self.count(event, os.path.join(os.path.realpath(os.path.dirname(whole)), os.path.basename(whole)))
            break  # one operation, whatever number of paths

    def _open(self, file: Any, mode: str = "r", buffering: int = -1, *rest: Any, **named: Any) -> Any:
        if not set(mode) & set("wax+") or not isinstance(file, str | bytes | os.PathLike):
            return self.plain_open(file, mode, buffering, *rest, **named)
        encoding, errors, newline, _, opener = (*rest, None, None, None, True, None)[:5] if rest else (None,) * 5
        raw = _Written(self, file, mode.replace("b", "").replace("t", ""), opener=named.get("opener", opener))
        if buffering == 0:
            return raw
        buffered = io.BufferedRandom(raw) if "+" in mode else io.BufferedWriter(raw)
        if "b" in mode:
            return buffered
        text = [named.get(name, value) for name, value in
                (("encoding", encoding), ("errors", errors), ("newline", newline))]  # fmt: skip
        return io.TextIOWrapper(buffered, *text, line_buffering=buffering == 1)


class _Written(io.FileIO):
    """File whose writes are counted."""

    def __init__(self, operations: Operations, *arguments: Any, **named: Any) -> None:
        super().__init__(*arguments, **named)
        self._operations = operations

    def write(self, data: Any) -> int:
        part = memoryview(data).cast("B")
        name = os.path.realpath(os.fsdecode(self.name))
        self._operations.count("write", name, lambda: io.FileIO.write(self, part[: len(part) // 2]))
        return super().write(data)


def _path_of(descriptor: int) -> str:
    try:
        return os.readlink(f"/proc/self/fd/{descriptor}")
    except OSError:
        return ""


def mortal(root: Path, journal: Path, last: int | None, work: Callable[..., int | None], *arguments: Any) -> int | None:
    """Do some work in this process, up to operation `last`; what a process of its own is started with."""
    Operations(root, journal, last).watch()
    return work(*arguments)
