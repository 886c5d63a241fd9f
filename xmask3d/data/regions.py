"""Regions of scenes that replace labels as the target of training without labels."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
from scipy.ndimage import distance_transform_edt

from xmask3d.data.array_cache import cached_array
from xmask3d.data.images import resize_nearest
from xmask3d.data.scannet import digest
from xmask3d.data.scene import Scene
from xmask3d.geometry.superpoints import COLOR_WEIGHT, segment_graph, surface_graph

MOST_REGIONS = 32
"""Largest number of regions of a view that are targets of training; the largest ones are taken."""

SMALLEST_REGION = 50
"""Fewest visible points of a region that is a target of training."""

SCALE = 4.0
"""Scale of the segmentation: CLIP names parts of objects worse than objects, and mixtures worse than either."""


class SceneRegions:
    """Segmentation of scenes into regions by geometry and colours alone.

    Args:
        cache: folder for results, keyed by path, size and time of the files that they depend on; None keeps them in
            memory.
    """

    def __init__(self, cache: Path | None = None) -> None:
        self._cache = Path(cache) / "regions" if cache else None
        self._known: dict[str, np.ndarray] = {}

    def find(self, scene: Scene, files: Sequence[Path] = ()) -> np.ndarray:
        """Return the region of each point, n int: the segments that came with the scene, or else its superpoints.

        Args:
            files: files that the scene depends on, as listed by `SceneReader.sources`; without them nothing is kept on
                disk.
        """
        if scene.segments is not None:
            return scene.segments
        if self._cache is None or not files:
            if scene.name not in self._known:
                self._known[scene.name] = divide_coarsely(scene)
            return self._known[scene.name]
        there = [file for file in files if file.exists()]
        path = self._cache / f"{scene.name}-{digest(there, [SCALE, len(scene.points)])}.npy"
        return cached_array(path, lambda: divide_coarsely(scene))


def divide_coarsely(scene: Scene) -> np.ndarray:
    """Divide a scene into regions of about the size of objects, n int32."""
    if len(scene.points) < 2:
        return np.zeros(len(scene.points), np.int32)
    graph = surface_graph(scene.points, (scene.colors + 1) / 2, normal_neighbours=32, color_neighbours=8)
    return segment_graph(graph, graph.bend + COLOR_WEIGHT * graph.contrast, SCALE).astype(np.int32)


def region_map(
    regions: np.ndarray, pixels: np.ndarray, frame_size: tuple[int, int], image_size: tuple[int, int]
) -> np.ndarray:
    """Draw the regions of a view's points as a picture; each pixel takes the region of the nearest point.

    Args:
        regions: N int, region of each visible point. pixels: N x 2 (row, column) on the frame grid, at least one.
        frame_size, image_size: height and width of the frame grid and of the result.

    Returns:
        H x W int64, regions numbered from 0 by falling size, fewer than `MOST_REGIONS`.
    """
    found, number, counts = np.unique(regions, return_inverse=True, return_counts=True)
    order = np.argsort(-counts, kind="stable")
    kept = max(1, min(MOST_REGIONS, int((counts >= SMALLEST_REGION).sum())))
    rank = np.full(len(found), -1)
    rank[order[:kept]] = np.arange(kept)
    drawn = np.full(frame_size, -1)
    shown = rank[number.reshape(-1)] >= 0
    drawn[pixels[shown, 0], pixels[shown, 1]] = rank[number.reshape(-1)[shown]]
    nearest = distance_transform_edt(drawn < 0, return_distances=False, return_indices=True)
    return np.ascontiguousarray(resize_nearest(drawn[tuple(nearest)].astype(np.int64), image_size))
