"""Visibility of points in a view, computed once and optionally kept on disk."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np

from xmask3d.data.array_cache import cached_array
from xmask3d.data.scannet import digest
from xmask3d.data.scene import Scene, View
from xmask3d.geometry.camera import visible_points


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
        kept = cached_array(path, lambda: _pack(*self._compute(scene, view)))
        pixels = np.stack([kept[:, 1] >> 16, kept[:, 1] & 0xFFFF], 1)
        return kept[:, 0].astype(np.int64), pixels.astype(np.int64)

    def _compute(self, scene: Scene, view: View) -> tuple[np.ndarray, np.ndarray]:
        size = view.depth.shape
        return visible_points(scene.points, view.pose, view.intrinsics, size, view.depth, self.border, self.tolerance)


def _pack(index: np.ndarray, pixels: np.ndarray) -> np.ndarray:
    """Return n x 2 int32: the index of each point, and its row and column in one number."""
    return np.stack([index, pixels[:, 0] << 16 | pixels[:, 1]], 1).astype(np.int32)
