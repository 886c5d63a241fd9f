"""LAS and LAZ, the formats of laser scans, read by laspy."""

import struct
import subprocess
import sys
import tempfile
from contextlib import suppress
from pathlib import Path

import numpy as np

from xmask3d.errors import UserError, missing_extra
from xmask3d.scan.cloud_raw import Raw, to_bytes


def read_las(path: Path, units: float | None) -> Raw:
    """Read points and colours.

    Args:
        path: the file.
        units: units per metre, if known.
    """
    try:
        import laspy
    except ImportError as error:
        raise missing_extra(f"{path}: reading LAS", "formats") from error
    try:
        compressed = _check_header(path)
        with tempfile.TemporaryDirectory() as folder:
            plain = _unpacked(path, Path(folder)) if compressed else path
            las = laspy.read(str(plain))
        with np.errstate(all="ignore"):  # a damaged scale; the resulting points are refused later
            points = np.stack([las.x, las.y, las.z], 1)
    except Exception as error:  # errors of laspy and its back ends have no common base class
        raise UserError(f"{path}: cannot be read as LAS ({str(error)[:100]})") from error
    names = set(las.point_format.dimension_names)
    colors = None
    if {"red", "green", "blue"} <= names:
        colors = to_bytes(np.stack([np.asarray(las[name]) for name in ("red", "green", "blue")], 1))
    return Raw(points, colors, [], units)


# Script that unpacks a LAZ file within a given address space.
UNPACK = """
import sys
try:
    import resource
    resource.setrlimit(resource.RLIMIT_AS, (int(sys.argv[3]),) * 2)
except ImportError:
    pass
import laspy
laspy.read(sys.argv[1]).write(sys.argv[2])
"""


def _unpacked(path: Path, folder: Path) -> Path:
    """Unpack a LAZ file in a separate process, because damaged data make the unpacker abort or never end."""
    plain, size = folder / "unpacked.las", path.stat().st_size
    command = [sys.executable, "-c", UNPACK, str(path), str(plain), str((4 << 30) + 200 * size)]
    with suppress(subprocess.TimeoutExpired):
        done = subprocess.run(command, capture_output=True, timeout=30 + size / 1e5, check=False)
        if not done.returncode and plain.is_file():
            return plain
    raise ValueError("its compressed points are damaged")


def _check_header(path: Path) -> bool:
    """Return True for compressed points, whatever the file name; `ValueError` for counts that do not fit the file."""
    size = path.stat().st_size
    with open(path, "rb") as file:
        header = file.read(375)
    if len(header) < 227 or header[:4] != b"LASF":
        raise ValueError("no LAS header")
    header_size, start, records = struct.unpack_from("<HII", header, 94)
    points = struct.unpack_from("<I", header, 107)[0]
    extended = 0
    if header[25] >= 4 and len(header) >= 255:
        extended, points = struct.unpack_from("<IQ", header, 243)
    if header_size + 54 * records > start or start > size or 60 * extended > size:
        raise ValueError("a damaged header")
    if points > 20 * size:  # a compressed point takes two bytes or more
        raise ValueError(f"{points} points in {size} bytes")
    return bool(header[104] & 0x80)
