"""Writing of files completely or not at all, and digests of files."""

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
"""Prefix of the names of temporary files. They are hidden, so nothing reads them, and `remove_leftovers` finds them."""

BLOCK = 1 << 20
AHEAD = 60_000_000_000
"""Largest difference between the clocks of two machines that share a disk, in nanoseconds."""


def atomic_write(
    path: Path,
    content: str | bytes | Callable[[Path], object],
    *,
    sync: bool = True,
    advice: str = "make room or choose another folder",
) -> None:
    """Write a file under a temporary name beside it, sync it, and rename it, so that it is complete or absent.

    An existing file does not change until then. The temporary name is unique, so that processes writing the same file
    do not collide, and has the suffix of `path`, by which numpy and Pillow choose the format. Before a process writes
    its first file to a folder, temporary files of killed processes are removed from it.

    Args:
        path: path of the file; missing folders are created.
        content: text (UTF-8, with line ends unchanged), bytes, or a function that writes the file at a given path.
        sync: wait until the file is on the disk, which is not worth it for thousands of files that are cheap to make
            again.
        advice: advice for a user whose disk refuses to write.

    Raises:
        WriteError: the system refuses (full disk, file too large, read only …); the message says why. The temporary
            file is removed.
    """
    path = Path(path)
    part = path.with_name(f"{PART}{_machine()}-{os.getpid()}-{secrets.token_hex(8)}{path.suffix}")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        _remove_orphans(path.parent)
        with open(part, "xb") as file:
            mode = os.fstat(file.fileno()).st_mode & 0o777  # permissions by the user's umask
            if not callable(content):
                file.write(content.encode() if isinstance(content, str) else content)
        if callable(content):
            content(part)
        part.chmod(mode)  # safetensors makes files readable by the owner alone
        if sync:
            _sync(part)
        _rename(part, path)
        if sync:
            _sync_folder(path.parent)
    except (OSError, RuntimeError, SafetensorError) as error:
        # numpy, torch and safetensors replace errors of the system by their own, which do not state the reason.
        refusal = getattr(error, "strerror", None) or _refusal(part)
        if refusal is None and not isinstance(error, SafetensorError):
            raise
        raise WriteError(f"{path}: cannot be written ({refusal or error}); {advice}") from error
    finally:
        with suppress(OSError):
            part.unlink(missing_ok=True)


@contextmanager
def locked(folder: Path, what: str) -> Iterator[None]:
    """Lock a folder for one writer; the system releases the lock when the process ends, however it ends.

    If the system has no such locks (Windows, some network disks), nothing is locked, and a line says so.

    Args:
        folder: folder to lock, created if missing.
        what: work in progress there, for the message to a second process.

    Raises:
        UserError: another process has locked the folder, or it cannot be created.
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
            # Not `flock`, because the loader processes of a killed training would keep its locks for some seconds.
            fcntl.lockf(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
            if not os.fstat(descriptor).st_nlink:
                # the previous holder removed the file meanwhile, and another process may have locked a new one
                raise BlockingIOError
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
    """Remove temporary files of killed writers from a folder that nobody else writes to meanwhile."""
    for path in folder.glob(f"{PART}*"):
        if path.is_file():
            path.unlink(missing_ok=True)


@cache
def _machine() -> str:
    """Return an identifier of the machine or container, since they may share a disk but not process ids."""
    space = os.stat("/proc/self/ns/pid").st_ino if os.path.exists("/proc/self/ns/pid") else 0
    return hashlib.sha256(f"{platform.node()} {space}".encode()).hexdigest()[:8]


@cache
def _remove_orphans(folder: Path) -> None:
    """Remove temporary files of this machine's ended processes, once per process and folder."""
    if os.name == "nt":  # on Windows `os.kill` would end processes
        return
    for path in folder.glob(f"{PART}{_machine()}-*-*"):
        number = path.name[len(PART) :].split("-")[1]
        try:
            os.kill(int(number), 0)
        except (ProcessLookupError, ValueError, OverflowError):
            with suppress(OSError):
                path.unlink()
        except OSError:
            pass  # the process of another user is alive


def newest(paths: Sequence[Path], advice: str) -> Path:
    """Return the most recently written file.

    Args:
        paths: at least one file.
        advice: advice for the user if the newest file cannot be determined.

    Raises:
        UserError: two files have the same time, as copies may have, or the last one has a time in the future.
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
    """Return the reason why the system cannot write more bytes to a file, or None."""
    try:
        with open(part, "ab") as file:
            file.write(bytes(BLOCK))
            file.flush()
            os.fsync(file.fileno())
    except OSError as error:
        return error.strerror
    return None


def _sync(path: Path) -> None:
    with open(path, "rb+") as file:  # Windows only syncs files that are open for writing
        os.fsync(file.fileno())


def _rename(source: Path, target: Path) -> None:
    for wait in (0.01, 0.1, 1.0):
        try:
            return os.replace(source, target)
        except PermissionError:
            if os.name != "nt":
                raise
            time.sleep(wait)  # Windows refuses as long as another process, such as a virus scanner, has the file open
    return os.replace(source, target)


def _sync_folder(folder: Path) -> None:
    """Make a rename durable, except on Windows, which has no such call."""
    if os.name == "nt":
        return
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
