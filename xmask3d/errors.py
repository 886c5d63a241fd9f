"""Errors that a user can correct."""

import errno
import io
import os
import re
import signal
import sys
import threading
import time
from collections.abc import Callable, Sequence

PATIENCE = 5.0
"""Seconds that processes other than the first wait before they report an error: usually the first one reports the same,
and then ends all of them."""


REFUSALS = {errno.ENOSPC, errno.EDQUOT, errno.EROFS, errno.EACCES, errno.EPERM,
            errno.EFBIG, errno.EEXIST, errno.EISDIR, errno.ENOTDIR, errno.ENAMETOOLONG}  # fmt: skip
"""Errors of the system that a user can fix."""


class UserError(Exception):
    """Mistake in input, data or setup, described in one line: what, where and what to do; exit code 1."""


def first_line(error: BaseException, most: int = 200) -> str:
    """Return the first line of an error's message, shortened; if it is empty, the error's type."""
    text = str(getattr(error, "strerror", None) or error).strip() or type(error).__name__
    return text.splitlines()[0][:most]


def some(names: Sequence[object], most: int = 4) -> str:
    """Join the first few names of a list."""
    return ", ".join(map(str, names[:most])) + (", ..." if len(names) > most else "")


class WriteError(UserError):
    """Error that the system does not let a file be written, which is never a fault of the data being read."""


def missing_extra(what: str, extra: str) -> UserError:
    """Make the error for an optional package that is not installed.

    Args:
        what: operation that is impossible, such as "LAS files".
        extra: name of the extra in pyproject.toml that installs the package.
    """
    return UserError(f"{what}: needs a package that is not installed: pip install 'xmask3d[{extra}]'")


def printable(text: str) -> str:
    """Escape control characters, which file names may contain and which would control a terminal."""
    return re.sub(r"[\x00-\x1f\x7f-\x9f]", lambda found: ascii(found[0])[1:-1], text)


def _report(text: str) -> None:
    if os.environ.get("LOCAL_RANK", "0") != "0":
        time.sleep(PATIENCE)
    print(f"error: {printable(text)}", file=sys.stderr)


def without_traceback(error: Exception) -> str:
    """Return the message of an error that a loader's process may have raised, without that process's traceback."""
    text, kind = str(error), type(error)
    if not text.startswith(f"Caught {kind.__name__} in DataLoader worker"):
        return text
    return text.rpartition(f"{kind.__module__}.{kind.__qualname__}: ")[2].strip()


LOST = {
    "A process in the process pool was terminated abruptly": "a worker was killed, perhaps for want of memory; "
    "start again to resume, with fewer --workers",
    "DataLoader worker (pid": "a loader process was killed, perhaps for want of memory or shared memory (/dev/shm); "
    "use fewer workers (data.workers, evaluate.workers; 0 needs no other process) and start again to resume",
    "Connection closed by peer": "another process of the run is gone, and says why itself; start again to resume",
    "Connection reset by peer": "another process of the run is gone, and says why itself; start again to resume",
}
"""Messages of torch and Python about a process that is gone, and their meaning for a user."""


def _end_helpers() -> None:
    """Kill loader processes left behind by a failure; they ignore signals, and this process would wait for them.

    The iterator that would end them is referenced by the failure's traceback until after that wait.
    """
    used = sys.modules.get("multiprocessing")  # importing it takes longer than most commands
    helpers = [process for process in used.active_children() if process.daemon] if used else []
    if not helpers:
        return
    if hasattr(signal, "SIGCHLD") and threading.current_thread() is threading.main_thread():
        signal.signal(signal.SIGCHLD, signal.SIG_DFL)  # torch's handler would report their end as another failure
    for process in helpers:
        process.kill()
        process.join()


def run_tool(main: Callable[[], int | None]) -> None:
    """Run a command's `main` and exit with its code; a `UserError` becomes one line on stderr, not a traceback.

    The same holds for unforeseen refusals of the system: a full disk, a file or folder without write permission, a file
    in place of a folder or the reverse, and the end of another process, which torch reports in many lines.
    """
    # read by torch: the CPU replaces missing operations of Apple's GPU
    os.environ.setdefault("PYTORCH_ENABLE_MPS_FALLBACK", "1")
    for stream in (sys.stdout, sys.stderr):
        # a console with a limited encoding prints escapes for other characters
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="backslashreplace")
    try:
        code = main()
    except UserError as error:
        _report(without_traceback(error))
        sys.exit(1)
    except OSError as error:
        if error.errno not in REFUSALS:
            raise
        _report(f"{error.filename or 'a file'}: {error.strerror}; what was saved before is intact")
        sys.exit(1)
    except RuntimeError as error:
        line = next((line for text, line in LOST.items() if text in str(error)), None)
        if line is None:
            raise
        _report(line)
        sys.exit(1)
    except KeyboardInterrupt:
        print("stopped by the user", file=sys.stderr)
        sys.exit(130)
    finally:
        _end_helpers()
    sys.exit(code or 0)
