"""Extraction of archives: only complete archives, and only into their folder."""

import bz2
import gzip
import logging
import lzma
import posixpath
import shutil
import stat
import struct
import tarfile
import zipfile
import zlib
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path, PurePosixPath
from typing import IO, TypeVar

from tqdm import tqdm

from xmask3d.data.download.fetch import BLOCK, make_folder, need_space
from xmask3d.errors import UserError, some
from xmask3d.files import atomic_write

log = logging.getLogger(__name__)

T = TypeVar("T")
LONGEST_PATH = 4096  # bytes


class DamagedArchive(UserError):
    """Error that an archive is damaged and must be downloaded again."""


def extract(archive: Path, folder: Path) -> None:
    """Unpack a zip or tar archive; existing files of the right size are kept.

    A tar archive is read to its end before the first file is written, because its checksum and end marks are there.
    Without them it is not known to be complete, and files of a damaged archive would later pass for good ones.

    A link to a file of the archive becomes a copy of that file. All other links, and entries that are neither files nor
    folders, are named in the log and skipped.

    Raises:
        DamagedArchive: the content is damaged; the damaged part is not written.
        UserError: the file is no archive, the disk is full, or a member would be written outside `folder`, in which
            case nothing is written.
    """
    archive, folder = Path(archive), Path(folder)
    make_folder(folder)
    try:
        # tar comes first, since an uncompressed one that ends with a checkpoint (a zip) would pass for a zip
        if _is_tar(archive):
            _extract_tar(archive, folder)
        elif zipfile.is_zipfile(archive):
            _extract_zip(archive, folder)
        else:
            problem = "neither a zip nor a tar archive, or damaged"
            raise DamagedArchive(f"{archive}: {problem}; delete it to fetch it again")
    except (OSError, RuntimeError, *_DAMAGE) as error:
        # Decompressors report bad data as an OSError without a number; errors of the system have one.
        if isinstance(error, RuntimeError) or (isinstance(error, OSError) and error.errno is not None):
            raise UserError(f"{archive}: cannot be unpacked ({error})") from error
        reason = str(error) or type(error).__name__
        raise DamagedArchive(f"{archive}: damaged ({reason}); delete it to fetch it again") from error


_DAMAGE = (
    tarfile.TarError, zipfile.BadZipFile, zlib.error, lzma.LZMAError, EOFError, ValueError, struct.error,
)  # fmt: skip


def _extract_zip(archive: Path, folder: Path) -> None:
    with zipfile.ZipFile(archive) as source:
        members = source.infolist()
        files = [member.filename for member in members if not member.is_dir()]
        if len(set(files)) < len(files):  # the last would silently replace those before it
            raise UserError(f"{archive}: holds two files of one name; the archive is refused")
        for member in members:
            _destination(archive, folder, member.filename)
        links: dict[str, str | None] = {}
        for member in _progress(members, archive):
            kind = stat.S_IFMT(member.external_attr >> 16)
            if kind and not (stat.S_ISREG(kind) or stat.S_ISDIR(kind)):
                target = source.read(member).decode(errors="replace") if _is_short_link(member, kind) else None
                links[member.filename] = _beside(member.filename, target)
            elif not member.is_dir():
                path = _destination(archive, folder, member.filename)
                with source.open(member) as stream:
                    _write(stream, path, member.file_size)
        _copy_links(archive, folder, links, {member.filename for member in members} - set(links))


def _extract_tar(archive: Path, folder: Path) -> None:
    _check_tar(archive, folder)
    links: dict[str, str | None] = {}
    files = set()
    with _open_tar(archive) as (source, _):
        for member in _progress(source, archive):
            if member.isreg():
                stream = source.extractfile(member)
                assert stream is not None  # it is a regular file
                _write(stream, _destination(archive, folder, member.name), member.size)
                files.add(member.name)
            elif member.issym():
                links[member.name] = _beside(member.name, member.linkname)
            elif not member.isdir():
                links[member.name] = member.linkname if member.islnk() else None
    _copy_links(archive, folder, links, files)


def _check_tar(archive: Path, folder: Path) -> None:
    """Refuse an archive with a hostile member or with damage anywhere.

    `tarfile` mistakes the end of the data, or an unreadable header, for the end of the archive, and does not read the
    rest of the stream with the checksum.
    """
    with _open_tar(archive) as (source, stream):
        for member in source:
            _destination(archive, folder, member.name)
        empty = bytes(tarfile.BLOCKSIZE)
        if stream.last != empty or stream.read(tarfile.BLOCKSIZE) != empty:
            raise EOFError("it is cut, or has a damaged header")
        while stream.read(BLOCK):
            pass


def _copy_links(archive: Path, folder: Path, links: dict[str, str | None], files: set[str]) -> None:
    """Copy the targets of links if they are in this archive; files already in the folder do not count.

    Args:
        links: {name of a link: name in the archive that it leads to, or None}.
        files: names of the archive's files.
    """
    known = {posixpath.normpath(name) for name in files}
    targets = {posixpath.normpath(name): target and posixpath.normpath(target) for name, target in links.items()}
    left_out = []
    for name in links:
        target: str | None = posixpath.normpath(name)
        for _ in range(40):  # a link may lead to a link, as far as Linux follows them
            target = targets.get(target) if target else None
            if target not in targets:
                break
        if target not in known:
            left_out.append(name)
            continue
        source = _destination(archive, folder, str(target))
        with open(source, "rb") as stream:
            _write(stream, _destination(archive, folder, name), source.stat().st_size)
    if left_out:
        count = len(left_out)
        log.warning("%s: left out %d links and devices that lead to no file of it: %s", archive, count, some(left_out))


def _beside(name: str, target: str | None) -> str | None:
    """Return the name in the archive of a symbolic link's target, which is relative to the link's folder."""
    return posixpath.join(posixpath.dirname(name), target) if target else None


def _is_short_link(member: zipfile.ZipInfo, kind: int) -> bool:
    return stat.S_ISLNK(kind) and member.file_size < LONGEST_PATH


class _TarStream:
    """Decompressed bytes of a tar archive; keeps the last piece, since going back would decompress everything again."""

    def __init__(self, stream: IO[bytes]) -> None:
        self._stream = stream
        self.last = b""
        self.seek, self.tell = stream.seek, stream.tell

    def read(self, size: int = -1) -> bytes:
        self.last = self._stream.read(size)
        return self.last


@contextmanager
def _open_tar(archive: Path) -> Iterator[tuple[tarfile.TarFile, _TarStream]]:
    """Open a tar archive and its stream, since `tarfile` decompresses too but cannot read the stream to its end."""
    with open(archive, "rb") as file:
        begin = file.read(6)
    openers: dict[bytes, Callable] = {b"\x1f\x8b": gzip.open, b"BZh": bz2.open, b"\xfd7zXZ\0": lzma.open}
    opener = next((opener for magic, opener in openers.items() if begin.startswith(magic)), open)
    with opener(archive, "rb") as file:
        stream = _TarStream(file)
        with tarfile.open(fileobj=stream, mode="r:") as source:  # type: ignore[call-overload]
            yield source, stream


def _is_tar(archive: Path) -> bool:
    try:
        with _open_tar(archive):
            return True
    except tarfile.TarError:
        return False


def _progress(members: Iterable[T], archive: Path) -> Iterator[T]:
    return iter(tqdm(members, desc=archive.name, unit="file", disable=None, leave=False))


def _destination(archive: Path, folder: Path, name: str) -> Path:
    """Return the path of a member, if it is inside `folder`."""
    pure = PurePosixPath(name.replace("\\", "/"))
    if pure.is_absolute() or ".." in pure.parts or ":" in name.split("/")[0] or "\0" in name:
        raise UserError(f"{archive}: '{name}' would be written outside its folder; the archive is refused")
    return folder.joinpath(*pure.parts)


def _write(stream: IO[bytes], path: Path, size: int) -> None:
    if path.is_file() and path.stat().st_size == size:
        return
    path.parent.mkdir(parents=True, exist_ok=True)
    need_space(path.parent, size)

    def write(part: Path) -> None:
        with open(part, "wb") as file:
            shutil.copyfileobj(stream, file, BLOCK)
            if file.tell() != size:
                raise EOFError(f"{path.name} ends early")

    atomic_write(path, write, sync=False)
