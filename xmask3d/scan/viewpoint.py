"""Camera that took a cloud, determined from the cloud itself: its coordinate frame, or the order of its points."""

import numpy as np

# tangents of half the largest viewing angles of depth cameras, horizontally and vertically
FRUSTUM = np.array([1.4, 1.1])
FAR = 8.0  # metres; range of the median depth of a room seen by a camera
BIN = 0.01  # size of a bin in tangents; a single view has one depth per bin
SINGLE = 0.05  # allowed difference of points in a bin, as a share of the depth
SHARE = 0.75  # smallest share of bins with a single depth
VOLUME = np.array([1.5, 1.5, -0.3])  # position of the camera in fused fragments, as placed by Open3D's integration


def camera_of(
    points: np.ndarray, placed: np.ndarray | None = None, grid: np.ndarray | None = None
) -> np.ndarray | None:
    """Return the axes of the camera (x right, y down, z forward) in a cloud's frame, 3 x 3, or None.

    Args:
        points: n x 3 metres.
        placed: 4 x 4 pose that the file states for the camera, or None.
        grid: h x w x 3, points in the order of an image's pixels with NaN where there are none, or None.
    """
    if grid is not None:
        return _of_grid(grid)
    poses = [np.eye(4), np.eye(4)]
    poses[1][:3, 3] = VOLUME
    for pose in poses if placed is None else [placed, *poses]:
        if _sees_all(points, pose):
            return pose[:3, :3]
    return None


def _sees_all(points: np.ndarray, pose: np.ndarray) -> bool:
    """Return True if all points are in a camera's view and hardly any is behind another."""
    local = (points[:: max(1, len(points) // 100_000)] - pose[:3, 3]) @ pose[:3, :3]
    depth = local[:, 2]
    ahead = depth > 0.05
    if ahead.mean() < 0.995 or np.median(depth) > FAR:
        return False
    tangents = local[ahead, :2] / depth[ahead, None]
    if (np.abs(tangents) < FRUSTUM).all(1).mean() < 0.98:
        return False
    size = max(BIN, 2 * float(np.sqrt(np.ptp(tangents, axis=0).prod() / len(tangents))))
    cells = np.floor(tangents / size).astype(np.int64) @ np.array([1 << 20, 1])
    order = np.argsort(cells, kind="stable")
    starts = np.flatnonzero(np.diff(cells[order], prepend=cells[order][0] - 1))
    sorted_depth = depth[ahead][order]
    low, high = np.minimum.reduceat(sorted_depth, starts), np.maximum.reduceat(sorted_depth, starts)
    several = np.diff(starts, append=len(order)) > 1
    return bool(several.sum() > 100 and (high - low < SINGLE * low)[several].mean() > SHARE)


def _of_grid(grid: np.ndarray) -> np.ndarray | None:
    """Return the axes of the camera, for points in the order of its image's pixels."""
    sides = []
    for steps in (np.diff(grid, axis=1), np.diff(grid, axis=0)):
        steps = steps[np.isfinite(steps).all(-1)]
        if len(steps) < 100:
            return None
        sides.append(np.median(steps, axis=0))
    right = sides[0] / max(float(np.linalg.norm(sides[0])), 1e-12)
    down = sides[1] - right * (right @ sides[1])
    length = float(np.linalg.norm(down))
    if length < 0.2 * float(np.linalg.norm(sides[1])) or not np.isfinite(length):
        return None
    down /= length
    return np.stack([right, down, np.cross(right, down)], 1)
