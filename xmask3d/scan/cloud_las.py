"""LAS and LAZ, the formats of laser scans, read by laspy."""

from pathlib import Path

import numpy as np

from xmask3d.errors import UserError, missing_extra
from xmask3d.scan.cloud_raw import Raw, to_bytes


def read_las(path: Path, units: float | None) -> Raw:
    """Read points and colours.

    Args:
        path: the file.
        units: units a metre where they are known.
    """
    try:
        import laspy
    except ImportError as error:
        raise missing_extra(f"{path}: reading LAS", "formats") from error
    try:
        with laspy.open(str(path)) as file:
            if file.header.point_count > 20 * path.stat().st_size:  # compressed ones take two bytes or more
                raise ValueError(f"{file.header.point_count} points in {path.stat().st_size} bytes")
            las = file.read()
        points = np.stack([las.x, las.y, las.z], 1)
    except (KeyboardInterrupt, SystemExit):
        raise
    except BaseException as error:
        # Errors of laspy and its back ends have no common base; a panic of lazrs is not even an `Exception`.
        raise UserError(f"{path}: cannot be read as LAS ({str(error)[:100]})") from error
    names = set(las.point_format.dimension_names)
    colors = None
    if {"red", "green", "blue"} <= names:
        colors = to_bytes(np.stack([np.asarray(las[name]) for name in ("red", "green", "blue")], 1))
    return Raw(points, colors, [], units)
