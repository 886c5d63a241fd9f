"""Visibility of all points of a scene, in the form of recorded cases."""

import numpy as np

from xmask3d.geometry.camera import Intrinsics, visible_points


def project_points(
    points: np.ndarray,
    pose: np.ndarray,
    intrinsics: Intrinsics,
    size: tuple[int, int],
    depth: np.ndarray | None = None,
    border: int = 10,
    tolerance: float = 0.25,
) -> tuple[np.ndarray, np.ndarray]:
    """Project points: pixels N x 2 int64 (row, column), zero where invisible, and N bool; see `visible_points`."""
    index, pixels = visible_points(points, pose, intrinsics, size, depth, border, tolerance)
    all_pixels = np.zeros((len(points), 2), np.int64)
    visible = np.zeros(len(points), bool)
    all_pixels[index], visible[index] = pixels, True
    return all_pixels, visible
