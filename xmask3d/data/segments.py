"""ScanNet's own over-segmentation of a scene, in a file `*.segs.json` beside its cloud."""

import glob
import logging
from pathlib import Path

import numpy as np

from xmask3d.guarded import read_object

log = logging.getLogger(__name__)


def segment_files(cloud: Path) -> list[Path]:
    """Return the files with segments of a cloud; only the first is read."""
    return sorted(cloud.parent.glob(f"{glob.escape(cloud.stem)}*.segs.json"))


def read_segments(cloud: Path, count: int) -> np.ndarray | None:
    """Read the segments of a cloud's points, numbered from 0.

    Args:
        cloud: file of the cloud, such as `scene0000_00_vh_clean_2.ply`. Its segments are in a file of the same folder
            whose name begins in the same way, such as `scene0000_00_vh_clean_2.0.010000.segs.json`.
        count: number of points of the cloud.

    Returns:
        n int64; None if there is no such file or, with a warning, if it has another number of points.

    Raises:
        UserError: the file is damaged.
    """
    files = segment_files(cloud)
    if not files:
        return None
    numbers = read_object(files[0], "segments of a scene").get("segIndices")
    if (
        not isinstance(numbers, list)
        or len(numbers) != count
        or not all(isinstance(n, int) and abs(n) < 1 << 62 for n in numbers)
    ):
        log.warning("%s: not one whole number (segIndices) for each of %d points; not used", files[0], count)
        return None
    return np.unique(np.array(numbers, np.int64), return_inverse=True)[1].reshape(-1)
