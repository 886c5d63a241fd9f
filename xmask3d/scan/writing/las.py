"""LAS and LAZ with labels as extra dimensions; points, dimensions, scales and records of the file are kept."""

from pathlib import Path
from typing import Any

import numpy as np

from xmask3d.errors import missing_extra
from xmask3d.files import atomic_write
from xmask3d.scan.writing.added import Added
from xmask3d.seal import sealed

USER = "xmask3d"


def positions(path: Path) -> np.ndarray:
    """Read the positions of the points, n x 3 float64 in the file's unit."""
    las = _read(path)
    return np.stack([las.x, las.y, las.z], 1).astype(np.float64)


def write(source: Path, target: Path, added: Added) -> None:
    """Write a copy with extra dimensions; its classification, whose codes have fixed meanings, does not change."""
    _write(target, _read(source), added)


def write_part(source: Path, target: Path, added: Added, kept: np.ndarray) -> None:
    """Write some points, n bool, with all their dimensions; `added` has the labels of all points."""
    las = _read(source)
    las.points = las.points[kept]
    _write(target, las, added.of(kept))


def write_cloud(target: Path, points: np.ndarray, colors: np.ndarray, added: Added) -> None:
    """Write points of another format, with millimetre resolution and 16-bit colours.

    Args:
        points: n x 3 metres.
        colors: n x 3 uint8.
    """
    laspy = _laspy(target)
    header = laspy.LasHeader(point_format=7, version="1.4")
    header.offsets, header.scales = np.floor(points.min(0)), np.full(3, 0.001)
    las = laspy.LasData(header)
    las.x, las.y, las.z = points.T
    las.red, las.green, las.blue = colors.astype(np.uint16).T * 257
    _write(target, las, added)


def _write(target: Path, las: Any, added: Added) -> None:
    laspy = _laspy(target)
    for name, values in added.columns(set(las.point_format.dimension_names)).items():
        las.add_extra_dim(laspy.ExtraBytesParams(name=name, type=values.dtype))
        las[name] = values
    if added.paint and {"red", "green", "blue"} <= set(las.point_format.dimension_names):
        las.red, las.green, las.blue = added.colors.astype(np.uint16).T * 257
    remarks = "\n".join(added.remarks()).encode()[:65000]
    las.vlrs.append(laspy.VLR(USER, 1, "digest, and names of labels", remarks))
    atomic_write(target, sealed(lambda part: las.write(str(part), do_compress=target.suffix.lower() == ".laz")))


def _read(path: Path) -> Any:
    laspy = _laspy(path)
    try:
        return laspy.read(str(path))
    except Exception as error:  # errors of laspy and its back ends have no common base class
        raise ValueError(str(error)) from error


def _laspy(path: Path) -> Any:
    try:
        import laspy
    except ImportError as error:
        raise missing_extra(f"{path}: reading and writing LAS", "formats") from error
    return laspy
