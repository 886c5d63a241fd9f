"""Search for a scan below a path: through archives and nested folders, and among several clouds."""

import shutil
import tempfile
import zipfile
from collections.abc import Iterator
from pathlib import Path

from xmask3d.data.download.archives import extract
from xmask3d.errors import UserError
from xmask3d.guarded import reading
from xmask3d.scan.clouds import SUFFIXES
from xmask3d.scan.foreign import without_depth
from xmask3d.scan.formats import list_files, point_clouds
from xmask3d.scan.frame_files import collect_files
from xmask3d.scan.layouts import find_recording
from xmask3d.scan.reconstructions import dense_clouds
from xmask3d.scan.recording import Recording
from xmask3d.scan.sensor_streams import open_sens

ARCHIVES = (".zip", ".r3d", ".tar", ".tgz", ".tar.gz")
IN_FOLDERS = [suffix for suffix in SUFFIXES if suffix not in (".txt", ".csv")]  # these contain many other things
DEEP = 4  # depth to which folders are searched
MANY = 2000  # largest number of folders to search
# largest unpacked size of an archive in bytes, and its largest ratio to the packed size beyond 1 GiB
LARGEST, DENSEST = 1 << 38, 200
MEMBERS = 2_000_000


def is_archive(path: Path) -> bool:
    """Return True for a file with the name of an archive."""
    return path.is_file() and path.name.lower().endswith(ARCHIVES)


def archive_name(archive: Path) -> str:
    """Return the name of an archive without its suffix; it is never empty and never leads to another folder."""
    suffix = max((suffix for suffix in ARCHIVES if archive.name.lower().endswith(suffix)), key=len)
    return archive.name[: -len(suffix)].strip(".") or "scan"


def unpack(archive: Path) -> Path:
    """Unpack an archive into a new temporary folder, which the caller removes.

    Returns:
        The folder inside the temporary one, named like the archive.

    Raises:
        UserError: the archive is damaged, would write elsewhere, or would unpack to much more than its size.
    """
    place = Path(tempfile.mkdtemp(prefix="xmask3d-scan-"))
    try:
        if zipfile.is_zipfile(archive):
            with reading(archive, "an archive"), zipfile.ZipFile(archive) as file:
                members = file.infolist()
            size = sum(member.file_size for member in members)
            if size > min(LARGEST, (1 << 30) + DENSEST * archive.stat().st_size) or len(members) > MEMBERS:
                raise UserError(
                    f"{archive}: would unpack to {size >> 20} MiB in {len(members)} files; if that is right, "
                    f"unpack it yourself"
                )
        folder = place / archive_name(archive)
        extract(archive, folder)
        return folder
    except BaseException as error:
        shutil.rmtree(place, ignore_errors=True)
        if isinstance(error, UserError):
            raise UserError(str(error).replace("delete it to fetch it again", "get or export it again")) from error
        raise


def find_scan(folder: Path, notes: list[str]) -> Recording | Path:
    """Find the only recording, cloud or archive in a folder or, if there is none, in the folders below.

    Args:
        folder: a folder.
        notes: list to which a sentence on each choice is added.

    Raises:
        UserError: there is no scan, there are several, or it is incomplete.
    """
    if (folder / "scannet_3d").is_dir():
        raise UserError(f"{folder}: a data set of many scenes; name one, such as {folder}/scannet_2d/<scene>")
    sens = list_files(folder, "*.sens")
    if len(sens) > 1:
        raise UserError(f"{folder}: {len(sens)} .sens files ({_names(sens, folder, 2)}); name one")
    found, problem, inner = None, None, _unwrapped(folder)
    try:
        found = _scan_in(inner, notes)
    except UserError as error:
        problem = error
    below: list[tuple[Path, Recording | Path]] = [] if found is None else [(inner, found)]
    for place in _folders_below(inner) if found is None else ():
        place = _unwrapped(place)
        if any(place.is_relative_to(other) for other, _ in below):
            continue
        try:
            found = _scan_in(place, [])
        except UserError as error:
            problem = problem or error
            continue
        if found is not None and (problem is None or isinstance(found, Recording)):
            below.append((place, found))
    if len(below) > 1:
        places = _names([place for place, _ in below], folder)
        raise UserError(f"{folder}: holds {len(below)} scans ({places}); name one, as {below[0][0]}")
    if below:
        place, found = below[0]
        if place != folder:
            notes.append(f"the scan is in {place.relative_to(folder)}")
        if isinstance(found, Recording) and found.path.is_dir():
            found.path = folder  # this name is the scan's
        return found
    if problem is not None:
        raise problem
    raise UserError(f"{folder}: found no scan{_half_of_one(folder)}")


def _unwrapped(folder: Path) -> Path:
    """Descend through folders that contain a single folder and no file, to the files of a recording."""
    for _ in range(DEEP):
        inside = [path for path in folder.iterdir() if not path.name.startswith((".", "__MACOSX"))]
        if len(inside) != 1 or not inside[0].is_dir() or inside[0].is_symlink():
            break
        folder = inside[0]
    return folder


def _scan_in(folder: Path, notes: list[str]) -> Recording | Path | None:
    sens = list_files(folder, "*.sens")
    if sens:
        return open_sens(sens[0])
    recording = find_recording(folder)
    if recording is not None:
        return recording
    clouds = point_clouds(folder, IN_FOLDERS) or dense_clouds(folder)
    if clouds:
        return _one_of(folder, clouds, notes)
    packed = [path for path in list_files(folder, "*") if is_archive(path)]
    if len(packed) > 1:
        raise UserError(f"{folder}: {len(packed)} archives ({_names(packed, folder)}); name one")
    return packed[0] if packed else None


def _one_of(folder: Path, clouds: list[Path], notes: list[str]) -> Path:
    """Choose a cloud; among several formats of one scan, the one most likely to have all points and colours."""
    clouds = sorted(clouds, key=lambda path: IN_FOLDERS.index(path.suffix.lower()))
    formats = {path.suffix.lower() for path in clouds}
    if len({path.name.split(".")[0].lower() for path in clouds}) > 1 or len(formats) < len(clouds):
        raise UserError(f"{folder}: {len(clouds)} point clouds ({_names(sorted(clouds), folder)}); name one, as "
                        f"{clouds[0]}")  # fmt: skip
    if len(clouds) > 1:
        notes.append(f"of {_names(clouds, folder)}, one scan by their names, {clouds[0].name} is used")
    return clouds[0]


def _folders_below(folder: Path) -> Iterator[Path]:
    """Yield visible folders below a folder, the nearest first."""
    level, count = [folder], 0
    for _ in range(DEEP):
        level = [below for place in level for below in sorted(place.iterdir()) if below.is_dir()
                 and not below.is_symlink() and not below.name.startswith((".", "__MACOSX"))]  # fmt: skip
        for place in level:
            count += 1
            if count > MANY:
                return
            yield place


def _names(paths: list[Path], folder: Path, most: int = 4) -> str:
    names = [str(path.relative_to(folder)) for path in paths[:most]]
    return ", ".join(names) + (" ..." if len(paths) > most else "")


def _half_of_one(folder: Path) -> str:
    files = collect_files(folder)
    if files.color and files.depth:
        count = f"{len(files.color)} colour and {len(files.depth)} depth pictures"
        return f" ({count}; names of files or folders must say which is which)"
    if files.depth:
        return (f": {len(files.depth)} depth pictures and no colour ones; names of files or folders must say which is "
                f"which, as color/ and depth/")  # fmt: skip
    reason = without_depth(path for pattern in ("*", "*/*", "*/*/*") for path in list_files(folder, pattern))
    return f": it holds {reason}" if reason else (
        f"; expected colour, depth and pose files (see docs/own_scan.md), a .sens file, or a point cloud "
        f"({', '.join(SUFFIXES)})"
    )  # fmt: skip
