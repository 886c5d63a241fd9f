"""E57, the format in which laser scanners exchange their scans, read by pye57."""

from pathlib import Path

import numpy as np

from xmask3d.errors import UserError, missing_extra
from xmask3d.scan.cloud_raw import Raw, to_bytes

MAX_POINTS = 500_000_000


def read_e57(path: Path, units: float | None) -> Raw:
    """Read points and colours of all scans of a file, each placed by its pose.

    Args:
        path: the file.
        units: units per metre, if known; E57 is in metres.
    """
    try:
        import pye57
    except ImportError as error:
        raise missing_extra(f"{path}: reading E57", "formats") from error
    points, colors = [], []
    try:
        file = pye57.E57(str(path))
        counts = [file.get_header(i).point_count for i in range(file.scan_count)]
        if sum(counts) > min(MAX_POINTS, 20 * path.stat().st_size):
            raise ValueError(f"{sum(counts)} points in {path.stat().st_size} bytes")
        for i in range(file.scan_count):
            scan = file.read_scan(i, colors=True, ignore_missing_fields=True)
            points.append(np.stack([scan[f"cartesian{axis}"] for axis in "XYZ"], 1))
            if all(f"color{name}" in scan for name in ("Red", "Green", "Blue")):
                colors.append(np.stack([scan[f"color{name}"] for name in ("Red", "Green", "Blue")], 1))
    except Exception as error:
        # libe57's errors have no common base class.
        raise UserError(f"{path}: cannot be read as E57 ({' '.join(str(error).split())[:100]})") from error
    notes = [f"{len(points)} scans of the file joined by their poses"] if len(points) > 1 else []
    joined = np.concatenate(points) if points else np.zeros((0, 3))
    known = len(colors) == len(points) and colors
    return Raw(joined, to_bytes(np.concatenate(colors)) if known else None, notes, units or 1.0)
