"""Seeded damage to the bytes of a file, and the tally of what readers made of it."""

import contextlib
import re
import resource
import time
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np

from xmask3d.errors import UserError

SECONDS = 5.0
MEMORY = 1 << 29
"""Bytes that reading a small damaged file may take."""

HEAD = 400
NUMBERS = re.compile(rb"\d+")
ABSURD = (b"0", b"-1", b"1000000000000", b"4294967295", b"nan", b"1e999", b"")


def flip(data: bytearray, rng: np.random.Generator) -> None:
    for place in rng.integers(0, len(data), rng.choice([1, 1, 8])):
        data[place] ^= 1 << int(rng.integers(8))


def truncate(data: bytearray, rng: np.random.Generator) -> None:
    del data[int(rng.integers(0, len(data))) :]


def zero(data: bytearray, rng: np.random.Generator) -> None:
    start, length = _stretch(data, rng)
    data[start : start + length] = bytes(length)


def noise(data: bytearray, rng: np.random.Generator) -> None:
    start, length = _stretch(data, rng)
    data[start : start + length] = rng.bytes(length)


def swap(data: bytearray, rng: np.random.Generator) -> None:
    length = int(rng.integers(1, max(2, len(data) // 4)))
    first, second = sorted(rng.integers(0, max(1, len(data) - 2 * length), 2).tolist())
    second += length
    data[first : first + length], data[second : second + length] = (
        data[second : second + length],
        data[first : first + length],
    )


def duplicate(data: bytearray, rng: np.random.Generator) -> None:
    start, length = _stretch(data, rng)
    data[start:start] = data[start : start + length]


def remove(data: bytearray, rng: np.random.Generator) -> None:
    start, length = _stretch(data, rng)
    del data[start : start + length]


def head_byte(data: bytearray, rng: np.random.Generator) -> None:
    place = int(rng.integers(0, min(HEAD, len(data))))
    data[place] = int(rng.choice([0, 1, 0x7F, 0x80, 0xFF, int(rng.integers(256))]))


def head_word(data: bytearray, rng: np.random.Generator) -> None:
    place = int(rng.integers(0, min(HEAD, len(data))))
    data[place : place + 4] = int(rng.choice([0, 0x7FFFFFFF, 0xFFFFFFFF, 0x80000000, 0x00FFFFFF])).to_bytes(4, "little")


def head_number(data: bytearray, rng: np.random.Generator) -> None:
    """Replace a number written in digits."""
    found = list(NUMBERS.finditer(data, 0, 4 * HEAD))
    if not found:
        return head_word(data, rng)
    match = found[int(rng.integers(len(found)))]
    data[match.start() : match.end()] = ABSURD[int(rng.integers(len(ABSURD)))]


def _stretch(data: bytearray, rng: np.random.Generator) -> tuple[int, int]:
    length = min(len(data), int(2 ** rng.uniform(0, 12)))
    return int(rng.integers(0, len(data) - length + 1)), length


KINDS = (flip, truncate, zero, noise, swap, duplicate, remove, head_byte, head_word, head_number)


def damages(content: bytes, count: int, seed: int) -> Iterator[tuple[str, bytes]]:
    """`count` damaged versions of a file's content, each different from it, with the kind of damage."""
    rng = np.random.default_rng(seed)
    made = 0
    while made < count:
        data, kind = bytearray(content), KINDS[made % len(KINDS)]
        kind(data, rng)
        if data != content:
            yield kind.__name__, bytes(data)
        made += 1


def outcome(read: Callable[[], Any], expected: Any, sealed: bool) -> str:
    """One word for what a reader made of a damaged file.

    Args:
        read: reads it; None stands for "made again".
        expected: of the whole file.
        sealed: another result than this is a silent fault.
    """
    _forget_peak()
    peak, start = _peak(), time.process_time()  # a busy machine is no fault
    try:
        value = read()
        word = "again" if value is None else "equal" if equal(value, expected) else "SILENT" if sealed else "other"
    except UserError as error:
        word = "refused" if "\n" not in str(error) else "LINES"
    except BaseException as error:
        word = f"EXCEPTION {type(error).__name__}"
    if time.process_time() - start > SECONDS:
        return "SLOW"
    return "MEMORY" if _peak() - peak > MEMORY else word


def _forget_peak() -> None:
    """Let the peak begin at what is used now, where the system can: an earlier test may have used more."""
    with contextlib.suppress(OSError):
        Path("/proc/self/clear_refs").write_text("5", encoding="ascii")


def _peak() -> int:
    """Return the largest memory so far; that of `getrusage` is at least what the process's parent had at its start."""
    with contextlib.suppress(OSError, TypeError):  # TypeError: no such line
        status = Path("/proc/self/status").read_text(encoding="ascii", errors="replace")
        return int(re.search(r"VmHWM:\s+(\d+) kB", status)[1]) * 1024  # type: ignore[index]
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024


def equal(first: Any, second: Any) -> bool:
    """Whether two results of a reader are the same, to the last bit."""
    if type(first) is not type(second):
        return False
    if isinstance(first, dict):
        return first.keys() == second.keys() and all(equal(first[key], second[key]) for key in first)
    if isinstance(first, list | tuple):
        return len(first) == len(second) and all(map(equal, first, second))
    if hasattr(first, "numpy"):
        return equal(first.numpy(), second.numpy())
    if isinstance(first, np.ndarray):
        return first.dtype == second.dtype and first.shape == second.shape and first.tobytes() == second.tobytes()
    return equal(vars(first), vars(second)) if hasattr(first, "__dict__") else bool(first == second)


def run(path: Path, read: Callable[[], Any], sealed: bool, count: int, seed: int) -> Counter:
    """Tally of `count` damages to a file, which is put back at the end."""
    content, expected = path.read_bytes(), read()
    tally: Counter = Counter()
    try:
        for number, (kind, damaged) in enumerate(damages(content, count, seed)):
            path.write_bytes(damaged)
            word = outcome(read, expected, sealed)
            tally[word] += 1
            if word.isupper() or word.startswith("EXCEPTION"):
                tally[f"  {word}: {kind}, number {number}"] += 1
    finally:
        path.write_bytes(content)
    return tally
