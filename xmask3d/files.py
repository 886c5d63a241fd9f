"""Files that appear complete or not at all, and digests of files."""

import hashlib
import os
import platform
import secrets
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from functools import cache
from pathlib import Path

from safetensors import SafetensorError

from xmask3d.errors import UserError, WriteError

try:
    import fcntl
except ImportError:  # Windows
    fcntl = None  # type: ignore[assignment]

LOCK = ".lock"
PART = ".part-"
"""Begin of the names of temporary files. Nothing looks at hidden files, and `remove_leftovers` finds them."""

BLOCK = 1 << 20
AHEAD = 60_000_000_000
"""Nanoseconds by which the clocks of two machines that share a disk may differ."""


def atomic_write(
    path: Path,
    content: str | bytes | Callable[[Path], object],
    *,
    sync: bool = True,
    advice: str = "make room or choose another folder",
) -> None:
    """Write a file under a temporary name beside it, sync it, and rename it: it appears complete or not at all.

    A file that was there stays as it was until then. The temporary name is unique, so that processes that write the
    same file do not meet, and has the suffix of `path`, by which numpy and Pillow choose the format. Temporary files of
    processes that were killed are removed from a folder before a process writes its first file there.

    Args:
        path: path of the file; folders above it are made.
        content: text (UTF-8, line ends as they are), bytes, or what writes the file at the path it is given.
        sync: wait until the disk has it; not worth it for thousands of files that are cheap to make again.
        advice: advice for a user whose disk refuses to write.

    Raises:
        WriteError: the system refuses (full disk, file too large, read only …): says why. The temporary file is gone.
    """
    path = Path(path)
    part = path.with_name(f"{PART}{_machine()}-{os.getpid()}-{secrets.token_hex(8)}{path.suffix}")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        _remove_orphans(path.parent)
        with open(part, "xb") as file:
            mode = os.fstat(file.fileno()).st_mode & 0o777  # as the user's umask has it
            if not callable(content):
                file.write(content.encode() if isinstance(content, str) else content)
        if callable(content):
            content(part)
        part.chmod(mode)  # safetensors lets nobody but the owner read
        if sync:
            _sync(part)
        _rename(part, path)
        if sync:
            _sync_folder(path.parent)
    except (OSError, RuntimeError, SafetensorError) as error:
        # numpy, torch and safetensors turn errors of the system into their own, which do not say why.
        refusal = getattr(error, "strerror", None) or _refusal(part)
        if refusal is None and not isinstance(error, SafetensorError):
            raise
        raise WriteError(f"{path}: cannot be written ({refusal or error}); {advice}") from error
    finally:
        with suppress(OSError):
            part.unlink(missing_ok=True)


@contextmanager
def locked(folder: Path, what: str) -> Iterator[None]:
    """Hold a folder for one writer; the system lets go of it when the process ends, however it ends.

    Where the system has no such locks (Windows, some network disks) nothing is held, which is printed.

    Args:
        folder: folder to hold, made when missing.
        what: work that is going on there, for the message to whoever comes second.

    Raises:
        UserError: another process holds the folder, or it cannot be made.
    """
    without = f"warning: {folder}: no locks on this system or disk; start no second process there ({what})"
    if fcntl is None:
        print(without, file=sys.stderr)
        yield
        return
    path = folder / LOCK
    try:
        folder.mkdir(parents=True, exist_ok=True)
        descriptor = os.open(path, os.O_RDWR | os.O_CREAT, 0o666)
    except OSError as error:
        raise WriteError(f"{folder}: cannot be made ({error.strerror}); choose another folder") from error
    try:
        try:
            # Not `flock`, whose locks the loader processes of a training that was killed would keep for seconds more.
            fcntl.lockf(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
            if not os.fstat(descriptor).st_nlink:
                raise BlockingIOError  # the one before removed the file meanwhile; another may hold a new one
        except (BlockingIOError, PermissionError) as error:
            raise UserError(
                f"{folder}: another process is at work there ({what}); wait for it, or choose another folder"
            ) from error
        except OSError:
            print(without, file=sys.stderr)
        try:
            yield
        finally:
            path.unlink(missing_ok=True)
    finally:
        os.close(descriptor)


def remove_leftovers(folder: Path) -> None:
    """Remove temporary files of writers that were killed, from a folder that nobody else writes to meanwhile."""
    for path in folder.glob(f"{PART}*"):
        if path.is_file():
            path.unlink(missing_ok=True)


@cache
def _machine() -> str:
    """Return digits that tell apart machines, and containers, which share a disk but not the numbers of processes."""
    space = os.stat("/proc/self/ns/pid").st_ino if os.path.exists("/proc/self/ns/pid") else 0
    return hashlib.sha256(f"{platform.node()} {space}".encode()).hexdigest()[:8]


@cache
def _remove_orphans(folder: Path) -> None:
    """Remove temporary files of processes of this machine that are gone, once per process and folder."""
    if os.name == "nt":  # its `os.kill` ends processes
        return
    for path in folder.glob(f"{PART}{_machine()}-*-*"):
        number = path.name[len(PART) :].split("-")[1]
        try:
            os.kill(int(number), 0)
        except (ProcessLookupError, ValueError, OverflowError):
            with suppress(OSError):
                path.unlink()
        except OSError:
            pass  # another user's, and alive


def newest(paths: Sequence[Path], advice: str) -> Path:
    """Return the file that was written last.

    Args:
        paths: at least one file.
        advice: advice for a user of whose files nobody can tell which is the newest.

    Raises:
        UserError: two were written at the same time, as copies may be, or the last one in the future.
    """
    *others, last = sorted(paths, key=lambda path: path.stat().st_mtime_ns)
    if others and others[-1].stat().st_mtime_ns == last.stat().st_mtime_ns:
        raise UserError(f"{last}: was written at the same time as {others[-1]}; {advice}")
    if others and last.stat().st_mtime_ns > time.time_ns() + AHEAD:
        raise UserError(f"{last}: was written in the future, as this clock has it; {advice}")
    return last


def sha256_of(path: Path) -> str:
    """Return the SHA-256 of a file as 64 hexadecimal digits."""
    digest = hashlib.sha256()
    with open(path, "rb") as file:
        while block := file.read(BLOCK):
            digest.update(block)
    return digest.hexdigest()


def _refusal(part: Path) -> str | None:
    """Return the reason for which the system takes no more bytes of a file; None if it does."""
    try:
        with open(part, "ab") as file:
            file.write(bytes(BLOCK))
            file.flush()
            os.fsync(file.fileno())
    except OSError as error:
        return error.strerror
    return None


def _sync(path: Path) -> None:
    with open(path, "rb+") as file:  # Windows syncs only what is open for writing
        os.fsync(file.fileno())


def _rename(source: Path, target: Path) -> None:
    for wait in (0.01, 0.1, 1.0):
        try:
            return os.replace(source, target)
        except PermissionError:
            if os.name != "nt":
                raise
            time.sleep(wait)  # Windows refuses while another process, such as a virus scanner, has the file open
    return os.replace(source, target)


def _sync_folder(folder: Path) -> None:
    """Make a rename durable; Windows has no such call."""
    if os.name == "nt":
        return
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
