"""Visibility of points in a view, computed once and optionally kept on disk."""

import logging
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from xmask3d.data.scannet import digest
from xmask3d.data.scene import Scene, View
from xmask3d.files import atomic_write
from xmask3d.geometry.camera import visible_points
from xmask3d.seal import is_whole_cache, sealed

log = logging.getLogger(__name__)


class Visibility:
    """Search for the visible points of views.

    Args:
        border: width of the ignored edge of a frame, in pixels.
        tolerance: allowed difference between a visible point's depth and the frame's, as a share of the depth.
        cache: folder for results, keyed by the parameters and by path, size and time of the files that they depend on;
            None to keep nothing. A damaged result is computed again.
    """

    def __init__(self, border: int = 10, tolerance: float = 0.25, cache: Path | None = None) -> None:
        self.border, self.tolerance = border, tolerance
        self._cache = Path(cache) / "visible" if cache else None

    def find(self, scene: Scene, view: View, files: Sequence[Path] = ()) -> tuple[np.ndarray, np.ndarray]:
        """Return indices (n int64, ascending) and pixels (n x 2 int64, row and column) of the visible points.

        Args:
            scene, view: scene and one of its views.
            files: files that the result depends on; without them it is not kept.
        """
        if self._cache is None or not files:
            return self._compute(scene, view)
        camera = view.intrinsics
        parameters = [self.border, self.tolerance, camera.fx, camera.fy, camera.cx, camera.cy, len(scene.points)]
        path = self._cache / scene.name / f"{view.name}-{digest(list(files), parameters)}.npy"
        try:
            if is_whole_cache(path):
                kept = np.load(path, allow_pickle=False)
                pixels = np.stack([kept[:, 1] >> 16, kept[:, 1] & 0xFFFF], 1)
                return kept[:, 0].astype(np.int64), pixels.astype(np.int64)
            log.warning("%s: damaged, computing it again", path)
        except OSError:  # no result on disk yet
            pass
        index, pixels = self._compute(scene, view)
        found = np.stack([index, pixels[:, 0] << 16 | pixels[:, 1]], 1).astype(np.int32)
        atomic_write(path, sealed(lambda part: np.save(part, found)), sync=False)
        return index, pixels

    def _compute(self, scene: Scene, view: View) -> tuple[np.ndarray, np.ndarray]:
        size = view.depth.shape
        return visible_points(scene.points, view.pose, view.intrinsics, size, view.depth, self.border, self.tolerance)
