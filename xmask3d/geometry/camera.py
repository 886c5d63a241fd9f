"""Pinhole cameras: the scene points visible in a posed depth frame, and their pixels (paper section 3.1)."""

from dataclasses import dataclass

import numpy as np


@dataclass(frozen=True)
class Intrinsics:
    """Pinhole parameters in pixels; pixel centres are at integers."""

    fx: float
    fy: float
    cx: float
    cy: float

    def scaled(self, from_size: tuple[int, int], to_size: tuple[int, int]) -> "Intrinsics":
        """Return the camera of the resized picture, see `scale_matrix`; sizes are (height, width)."""
        matrix = np.array([[self.fx, 0, self.cx], [0, self.fy, self.cy], [0, 0, 1]])
        (fx, _, cx), (_, fy, cy), _ = scale_matrix(matrix, from_size, to_size).tolist()
        return Intrinsics(fx, fy, cx, cy)


def scale_matrix(matrix: np.ndarray, from_size: tuple[int, int], to_size: tuple[int, int]) -> np.ndarray:
    """Return the intrinsics of a resized picture.

    One convention holds everywhere: pixel centres are at integers, and a picture extends half a pixel further on each
    side, from -0.5 to its width - 0.5. Resizing stretches this area (as with `align_corners=False` in torch, and in
    Pillow and OpenCV), so a coordinate c becomes (c + 0.5) * ratio - 0.5, and the middle of a picture stays in the
    middle. The published cameras keep their published values, since their principal point is the middle; scaling by the
    outer pixel centres, (n - 1) / (N - 1), would agree for them only.

    Args:
        matrix: ... x 3 x 3.
        from_size, to_size: (height, width).

    Returns:
        ... x 3 x 3 float64.
    """
    scaled = matrix.astype(float).copy()
    for row, (before, after) in enumerate(((from_size[1], to_size[1]), (from_size[0], to_size[0]))):
        ratio = after / before
        scaled[..., row, :2] *= ratio
        scaled[..., row, 2] = (scaled[..., row, 2] + 0.5) * ratio - 0.5
    return scaled


# ScanNet's depth camera as published with the benchmark, at 640 x 480 and on the frame grid of 320 x 240.
SCANNET_DEPTH_INTRINSICS = Intrinsics(577.870605, 577.870605, 319.5, 239.5)
PUBLISHED_INTRINSICS = SCANNET_DEPTH_INTRINSICS.scaled((480, 640), (240, 320))


def visible_points(
    points: np.ndarray,
    pose: np.ndarray,
    intrinsics: Intrinsics,
    size: tuple[int, int],
    depth: np.ndarray | None = None,
    border: int = 10,
    tolerance: float = 0.25,
) -> tuple[np.ndarray, np.ndarray]:
    """Project points into a frame and find those that are visible.

    A point is visible if it rounds (half to even) to a pixel at least `border` pixels inside the frame, and its depth
    differs from the frame's depth at that pixel by at most `tolerance` times the latter.

    Args:
        points: N x 3, metres, world frame.
        pose: 4 x 4, camera to world. One with NaN or infinity sees nothing.
        intrinsics: intrinsics for a picture of `size`.
        size: (height, width) of the frame.
        depth: height x width, metres, 0 where unknown; without it no point in front of the camera counts as occluded.
        border: width of the ignored edge of the frame, in pixels.
        tolerance: allowed difference, as a share of the depth.

    Returns:
        n int64, ascending indices of the visible points, and n x 2 int64 (row, column).
    """
    nothing = np.zeros(0, np.int64), np.zeros((0, 2), np.int64)
    if not np.isfinite(pose).all() or not len(points):
        return nothing
    try:
        world_to_camera = np.linalg.inv(np.asarray(pose, np.float64))
    except np.linalg.LinAlgError:
        return nothing
    rotation, translation = world_to_camera[:3, :3], world_to_camera[:3, 3]
    farthest = np.inf if depth is None else float(np.fmax.reduce(depth, axis=None)) * (1 + tolerance) * (1 + 1e-6)
    index = _in_frustum(points, world_to_camera, intrinsics, size, border, farthest)
    x, y, z = rotation @ points.take(index, 0).astype(np.float64).T + translation[:, None]
    near = np.flatnonzero((z > 0) & (z <= farthest))
    index, x, y, z = index.take(near), x.take(near), y.take(near), z.take(near)
    # The multiplication comes first, which decides the pixel of points exactly between two pixels.
    column = np.rint(x * intrinsics.fx / z + intrinsics.cx)
    row = np.rint(y * intrinsics.fy / z + intrinsics.cy)
    height, width = size
    inside = (column >= border) & (column < width - border) & (row >= border) & (row < height - border)
    kept = np.flatnonzero(inside)
    index = index.take(kept)
    pixels = np.stack([row.take(kept), column.take(kept)], 1).astype(np.int64)
    if depth is None:
        return index, pixels
    seen = np.asarray(depth).take(pixels[:, 0] * width + pixels[:, 1]).astype(np.float64)
    agree = np.flatnonzero(np.abs(seen - z.take(kept)) <= tolerance * seen)
    return index.take(agree), pixels.take(agree, 0)


def _in_frustum(
    points: np.ndarray,
    world_to_camera: np.ndarray,
    camera: Intrinsics,
    size: tuple[int, int],
    border: int,
    farthest: float,
) -> np.ndarray:
    """Return the indices of points inside six planes: all that may be visible, and few others.

    The test is quick because it is in float32; a margin of a pixel plus all possible rounding makes sure that no
    visible point is lost.
    """
    height, width = size
    planes = np.zeros((6, 4))  # coefficients of x, y, z and 1 in the camera's frame
    planes[0, 2] = 1
    planes[1, 2:] = -1, min(farthest, np.finfo(np.float32).max)
    planes[2, [0, 2]] = camera.fx, camera.cx - border + 1
    planes[3, [0, 2]] = -camera.fx, width - border - camera.cx
    planes[4, [1, 2]] = camera.fy, camera.cy - border + 1
    planes[5, [1, 2]] = -camera.fy, height - border - camera.cy
    planes /= np.linalg.norm(planes[:, :3], axis=1, keepdims=True)
    planes = planes @ world_to_camera
    extent = max(float(points.max()), -float(points.min())) + float(np.abs(world_to_camera[:3, 3]).max())
    distance = planes[:, :3].astype(np.float32) @ np.asarray(points, np.float32).T
    distance += planes[:, 3:].astype(np.float32)
    return np.flatnonzero(distance.min(0) >= -1e-5 * extent)
