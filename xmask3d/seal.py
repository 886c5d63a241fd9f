"""Digests inside the files that this package writes, so that damage is noticed at every load.

A sealed file contains the mark `xmask3d-sha256:` and 64 hexadecimal digits: the SHA-256 of the complete file with zeros
instead of the digits. The mark is an entry of the metadata in safetensors, an entry in JSON, and a comment in PLY and
YAML; in arrays it follows the data, where numpy's reader and those of zip archives stop. Scene files, and checkpoints
without their digest, are zip archives with checksums of their own. Captions, which people edit, have their digest in a
separate file.
"""

import hashlib
import json
import os
import re
import time
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import IO, Any

from xmask3d.errors import UserError
from xmask3d.files import atomic_write, sha256_of
from xmask3d.guarded import read_object, read_text, reading

_MARK = b"xmask3d-sha256:"
_DIGITS = 64
# Remains of a damaged mark, searched in the first part of a file.
_SCARS = re.compile(
    rb"xmask3d-sh|d-sha256|sha256:[0-9a-f]{4}|xmask3d-.{7}[0-9a-f]{16}|\"sealed\": true|# sealed by the last line",
    re.DOTALL,
)
_SCARRED = 4096
_CHUNK = 1 << 20  # also the size of the first part of a file in which the mark is searched

UNSEALED = {"seal": f"{_MARK.decode()}{'0' * _DIGITS}"}
"""Entry for the metadata of a safetensors file, or for JSON, to be filled by `seal`; its value may be a comment."""


def seal(path: Path) -> None:
    """Write the digest of a file into its mark, which is appended to a file without one."""
    with open(path, "r+b") as file:
        place = _find(file)
        if place is None:
            place = file.seek(0, os.SEEK_END) + len(_MARK)
            file.write(_MARK + b"0" * _DIGITS)
        digest = _digest(file, place)
        file.seek(place)
        file.write(digest)


class Checked:
    """Files that this process has found intact, which avoids repeated checks."""

    def __init__(self) -> None:
        self._states: set[tuple] = set()

    def holds(self, path: Path) -> bool:
        """Return True if a file is unchanged since it was added."""
        return self._state(path) in self._states

    def add(self, path: Path) -> None:
        """Remember a file, unless it changed so recently that a change right after it would bear the same time."""
        state = self._state(path)
        if time.time_ns() - max(state[-2:]) > 2_000_000_000:
            self._states.add(state)

    def _state(self, path: Path) -> tuple:
        stat = os.stat(path)
        return os.path.abspath(path), stat.st_ino, stat.st_size, stat.st_mtime_ns, stat.st_ctime_ns


_checked = Checked()


def is_whole_cache(path: Path) -> bool:
    """Return True if a cached result has the right digest, which is checked once per process until the file changes.

    Raises:
        OSError: no such file.
    """
    if _checked.holds(path):
        return True
    whole = is_sound(path) is True
    if whole:
        _checked.add(path)
    return whole


def sealed_yaml(text: str) -> Callable[[Path], None]:
    """Return a writer for `atomic_write` of a YAML file that is sealed by comments at both ends."""
    text = f"# sealed by the last line\n{text}# {UNSEALED['seal']}\n"
    return sealed(lambda part: part.write_bytes(text.encode()))


def sealed(write: Callable[[Path], object]) -> Callable[[Path], None]:
    """Return a writer for `atomic_write` whose file is sealed after writing."""

    def write_sealed(path: Path) -> None:
        write(path)
        seal(path)

    return write_sealed


def is_sound(path: Path) -> bool | None:
    """Compare a file with the digest inside it; None if it has no digest, nor remains of one."""
    with open(path, "rb") as file:
        place = _find(file)
        if place is None:
            return False if _is_scarred(file) else None
        file.seek(place)
        digits = file.read(_DIGITS)
        return digits == _digest(file, place)


def _is_scarred(file: IO[bytes]) -> bool:
    """Return True if the beginning or the end of a file has a part of a mark."""
    size, found = file.seek(0, os.SEEK_END), False
    for start in (0, max(0, size - _SCARRED)):
        file.seek(start)
        found |= _SCARS.search(file.read(_SCARRED)) is not None
    return found


def has_seal(path: Path) -> bool:
    """Return True for a file written by this package, intact or not."""
    with open(path, "rb") as file:
        return _find(file) is not None


def check_seal(path: Path, advice: str = "copy or make it again") -> None:
    """Raise `UserError` if a file changed after it was written; a file without a digest is accepted."""
    try:
        if is_sound(path) is False:
            raise UserError(f"{path}: damaged, its SHA-256 is not the one inside it; {advice}")
    except OSError as error:
        raise UserError(f"{path}: cannot be read ({error.strerror or error})") from error


def sealed_json(content: dict[str, Any], **options: Any) -> Callable[[Path], None]:
    """Return a writer for `atomic_write` of a sealed JSON file.

    Its first entry announces the last one, the digest, so that no single gap removes both.

    Args:
        content: top-level entries, none of which may be called `sealed` or `seal`.
        options: options of `json.dumps`.
    """
    text = json.dumps({"sealed": True, **content, **UNSEALED}, **options) + "\n"
    return sealed(lambda part: part.write_bytes(text.encode()))


def read_sealed_json(path: Path, expected: str = "JSON of this program") -> dict[str, Any]:
    """Read names and values, and check the digest where there is one. Raises `UserError` for other files or damage."""
    content = read_object(path, expected)
    check_seal(path, "delete its entries 'sealed' and 'seal' if it was changed on purpose, else copy or make it again")
    content.pop("sealed", None)
    content.pop("seal", None)
    return content


def check_archive(path: Path) -> None:
    """Raise `UserError` if an entry of a zip archive does not match its checksum, which torch does not verify."""
    try:
        if not zipfile.is_zipfile(path):
            return
        with zipfile.ZipFile(path) as archive:
            broken = archive.testzip()
    except Exception as error:  # damaged archives raise all kinds of errors
        raise UserError(f"{path}: damaged ({str(error).split(chr(10))[0]})") from error
    if broken is not None:
        raise UserError(f"{path}: damaged in {broken}")


def beside(path: Path) -> Path:
    """Return the path of the digest for a file that has none inside."""
    return path.with_name(path.name + ".sha256")


def write_beside(path: Path) -> None:
    """Write the digest of a file, as `sha256sum` prints it, beside it."""
    atomic_write(beside(path), f"{sha256_of(path)}  {path.name}\n")


def digest_beside(path: Path) -> str | None:
    """Return the digest in the file beside; None without one. Raises `UserError` where that cannot be read."""
    if not beside(path).exists():
        return None
    return next(iter(read_text(beside(path), "a digest", errors="replace", most=_SCARRED).split()), "")


def check_beside(path: Path) -> None:
    """Raise `UserError` where a digest lies beside a file and is another's."""
    said = digest_beside(path)
    if said is None:
        return
    with reading(path, "a file with a digest"):
        found = sha256_of(path)
    if said != found:
        raise UserError(
            f"{path}: not as it was written, its SHA-256 is not the one in {beside(path).name}; if it was changed on "
            f"purpose, delete {beside(path).name}"
        )


def _find(file: IO[bytes]) -> int | None:
    """Find the first digit of the mark: at the very end of the file, at its beginning, or near its end."""
    size = file.seek(0, os.SEEK_END)
    last = len(_MARK) + _DIGITS
    for start, length in ((size - last, last), (0, _CHUNK), (size - _SCARRED, _SCARRED)):
        start = max(0, start)
        file.seek(start)
        place = file.read(length).find(_MARK)
        if place >= 0 and start + place + len(_MARK) + _DIGITS <= size:
            return start + place + len(_MARK)
    return None


def _digest(file: IO[bytes], place: int) -> bytes:
    digest = hashlib.sha256()
    file.seek(0)
    _feed(digest, file, place)
    digest.update(b"0" * _DIGITS)
    file.seek(place + _DIGITS)
    _feed(digest, file, None)
    return digest.hexdigest().encode()


def _feed(digest: "hashlib._Hash", file: IO[bytes], count: int | None) -> None:
    """Add `count` bytes to the digest, or all that follow."""
    while chunk := file.read(_CHUNK if count is None else min(_CHUNK, count)):
        digest.update(chunk)
        count = None if count is None else count - len(chunk)
