"""Compilation of the C++ sources beside this file, once per machine, and loading of the result.

The library is kept in the user's cache folder under a digest of sources, flags and processor, so that other versions
and other processors sharing the folder have their own. It is written under a temporary name and renamed while a lock is
held: processes that start together compile only once, and none loads an incomplete file. Its OpenMP calls bind to the
runtime that torch has loaded (torch must be imported first), so that both share a pool of threads.
"""

import ctypes
import hashlib
import logging
import os
import platform
import shutil
import subprocess
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from xmask3d.errors import UserError
from xmask3d.files import atomic_write

log = logging.getLogger(__name__)

_SOURCES = Path(__file__).parent / "source"
_COMPILERS = ("c++", "g++", "clang++")
_FLAGS = ("-std=c++17", "-O3", "-fno-math-errno", "-fPIC", "-pthread")
# The first flags that the compiler accepts are used: some do not support OpenMP, or name the processor differently.
_OPTIONAL_FLAGS = (
    ("-march=native", "-fopenmp"), ("-mcpu=native", "-fopenmp"), ("-march=native",), ("-mcpu=native",), ()
)  # fmt: skip
_SECONDS = 300


class BuildError(Exception):
    """Error that the library is not available on this machine, with the reason in one line."""


def load_library() -> ctypes.CDLL:
    """Load the library, compiling it first if no earlier process has.

    Raises:
        BuildError: there is no compiler, or the compiler or the loader fails.
    """
    name = f"sparse-{_digest()}.so"
    compiled = b""
    for folder in _cache_folders():
        try:
            folder.mkdir(parents=True, exist_ok=True, mode=0o700)
            if not _is_own(folder):
                continue
            if not (folder / name).exists():
                with _lock(folder / f"{name}.lock"):
                    if not (folder / name).exists():
                        compiled = compiled or _compile()
                        atomic_write(folder / name, compiled)
            return ctypes.CDLL(str(folder / name))
        except (OSError, UserError) as error:  # the folder is not writable, is full, or must not contain programs
            log.debug("cannot keep the compiled library in %s: %s", folder, error)
    try:
        with tempfile.TemporaryDirectory() as scratch:  # a loaded library remains usable without its file
            atomic_write(Path(scratch) / name, compiled or _compile(), sync=False)
            return ctypes.CDLL(str(Path(scratch) / name))
    except (OSError, UserError) as error:
        raise BuildError(f"the compiled library cannot be loaded: {error}") from error


def _cache_folders() -> list[Path]:
    named = os.environ.get("XDG_CACHE_HOME")
    home = Path(named) if named else Path(os.path.expanduser("~")) / ".cache"
    user = getattr(os, "getuid", lambda: "user")()
    return [home / "xmask3d", Path(tempfile.gettempdir()) / f"xmask3d-{user}"]


def _is_own(folder: Path) -> bool:
    """Return True if nobody else can place a library in the folder for this program to run."""
    state = folder.stat()
    return not hasattr(os, "getuid") or (state.st_uid == os.getuid() and not state.st_mode & 0o022)


def _digest() -> str:
    digest = hashlib.sha256(repr((_FLAGS, _OPTIONAL_FLAGS, platform.machine(), platform.system())).encode())
    for path in sorted(_SOURCES.iterdir()):
        digest.update(path.name.encode() + b"\0" + path.read_bytes())
    processor = Path("/proc/cpuinfo")
    if processor.exists():
        wanted = ("model name", "flags", "Features", "CPU part")
        lines = {line for line in processor.read_text(encoding="utf-8").splitlines() if line.startswith(wanted)}
        digest.update("\n".join(sorted(lines)).encode())
    else:
        digest.update(platform.processor().encode())
    return digest.hexdigest()[:24]


@contextmanager
def _lock(path: Path) -> Iterator[None]:
    """Admit one process at a time, if system and folder support locks; a lock ends with its process."""
    try:
        import fcntl
    except ImportError:
        yield
        return
    with path.open("w", encoding="utf-8") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX)
        except OSError:
            log.debug("no lock in %s", path.parent)
        yield


def find_compiler() -> list[str]:
    """Find the command of the C++ compiler: from the variable CXX, or the first known one; empty if there is none."""
    chosen = os.environ.get("CXX", "").split()
    if not chosen or not shutil.which(chosen[0]):
        chosen = [path for path in map(shutil.which, _COMPILERS) if path][:1]
    return chosen


def _compile() -> bytes:
    """Compile the library in the system's temporary folder, which has space even if the cache is full."""
    chosen = find_compiler()
    if not chosen:
        raise BuildError("no C++ compiler found")
    log.info("compiling the sparse convolutions, once on this machine")
    sources = [str(path) for path in sorted(_SOURCES.glob("*.cpp"))]
    with tempfile.TemporaryDirectory() as scratch:
        result = Path(scratch) / "library.so"
        for optional in _OPTIONAL_FLAGS:
            flags = [*_FLAGS, *optional, "-shared", "-o", str(result), *sources]
            message = _run([*chosen, *flags])
            if not message:
                return result.read_bytes()
    raise BuildError(f"{chosen[0]} fails: {message}")


def _run(command: list[str]) -> str:
    """Run a compiler; return an empty string, or its first error."""
    try:
        done = subprocess.run(command, capture_output=True, text=True, errors="replace", check=False, timeout=_SECONDS)
    except OSError as error:
        return str(error)
    except subprocess.TimeoutExpired as error:  # other flags would not be faster
        raise BuildError(f"{command[0]} does not finish in {_SECONDS} s") from error
    if not done.returncode:
        return ""
    lines = [line for line in done.stderr.splitlines() if "error" in line]
    return (lines or done.stderr.splitlines() or [f"code {done.returncode}"])[0]
