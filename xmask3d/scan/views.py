"""Frames of a recording on the frame grid: resizes pictures, maps depth onto colour, and divides tall pictures."""

import math

import numpy as np
from PIL import Image

from xmask3d.geometry.camera import Intrinsics, scale_matrix
from xmask3d.scan.recording import Calibration, Recording

SQUEEZE = 1.45  # a picture whose aspect ratio differs more than this from the grid's is cut in parts

Box = tuple[int, int, int, int]  # top, left, height, width


def crop_boxes(size: tuple[int, int], grid: tuple[int, int]) -> list[Box]:
    """Return the parts of a picture (height, width) that become views; tall or wide pictures have several.

    A portrait picture would be squeezed to half its width on a landscape grid; two overlapping parts keep the shapes
    that the networks know.
    """
    height, width = size
    ratio = (width / height) / (grid[1] / grid[0])
    if 1 / SQUEEZE <= ratio <= SQUEEZE:
        return [(0, 0, height, width)]
    tall = ratio < 1
    length, part = (height, round(width * grid[0] / grid[1])) if tall else (width, round(height * grid[1] / grid[0]))
    count = math.ceil(length / part)
    starts = np.linspace(0, length - part, count).round().astype(int)
    return [(int(s), 0, part, width) if tall else (0, int(s), height, part) for s in starts]


def quarter_turns(rotation: np.ndarray, up: np.ndarray) -> int:
    """Return the quarter turns (counter-clockwise, as in `numpy.rot90`) that make a camera's picture upright.

    Args:
        rotation: 3 x 3, camera (x right, y down) to world.
        up: 3, unit.

    Returns:
        Number of quarter turns; 0 for a camera that looks nearly straight up or down.
    """
    across, along = float(rotation[:, 0] @ up), -float(rotation[:, 1] @ up)
    if max(abs(across), abs(along)) < 0.35:
        return 0
    if abs(along) >= abs(across):
        return 0 if along > 0 else 2
    return 1 if across > 0 else 3


def turn_matrix(matrix: np.ndarray, size: tuple[int, int], turns: int) -> np.ndarray:
    """Return the intrinsics 3 x 3 of a picture of `size` (height, width) after `numpy.rot90(picture, turns)`."""
    turned = matrix.astype(float).copy()
    for _ in range(turns % 4):
        fx, fy, cx, cy = turned[0, 0], turned[1, 1], turned[0, 2], turned[1, 2]
        turned = np.array([[fy, 0, cy], [0, fx, size[1] - 1 - cx], [0, 0, 1.0]])
        size = (size[1], size[0])
    return turned


def turn_pose(pose: np.ndarray, turns: int) -> np.ndarray:
    """Return the camera-to-world pose 4 x 4 of a picture turned by `numpy.rot90(picture, turns)`."""
    turned = pose.copy()
    for _ in range(turns % 4):
        turned[:, 0], turned[:, 1] = turned[:, 1].copy(), -turned[:, 0].copy()
    return turned


def grid_matrix(matrix: np.ndarray, box: Box, grid: tuple[int, int]) -> np.ndarray:
    """Return the intrinsics 3 x 3 of a part of a picture resized to `grid`."""
    shifted = matrix.astype(float).copy()
    shifted[0, 2] -= box[1]
    shifted[1, 2] -= box[0]
    return scale_matrix(shifted, (box[2], box[3]), grid)


def image_on_grid(picture: np.ndarray, box: Box, grid: tuple[int, int]) -> np.ndarray:
    """Resize a part of an h x w x 3 uint8 picture to `grid` (height, width)."""
    top, left, height, width = box
    part = picture[top : top + height, left : left + width]
    if part.shape[:2] == grid:
        return np.ascontiguousarray(part)
    return np.asarray(Image.fromarray(part).resize((grid[1], grid[0]), Image.Resampling.BILINEAR))


def depth_on_grid(depth: np.ndarray, depth_matrix: np.ndarray, matrix: np.ndarray, grid: tuple[int, int]) -> np.ndarray:
    """Return depth (h x w) resampled to the intrinsics of the grid; nearest measurement, 0 outside of it.

    Colour and depth cameras are assumed to be in the same place, as in registered recordings; sizes and focal lengths
    may differ.
    """
    rows, columns = (
        np.round((np.arange(grid[axis]) - matrix[1 - axis, 2]) / matrix[1 - axis, 1 - axis]
                 * depth_matrix[1 - axis, 1 - axis] + depth_matrix[1 - axis, 2]).astype(int)
        for axis in (0, 1)
    )  # fmt: skip
    good_rows = (rows >= 0) & (rows < depth.shape[0])
    good_columns = (columns >= 0) & (columns < depth.shape[1])
    out = np.zeros(grid, np.float32)
    out[np.ix_(good_rows, good_columns)] = depth[np.ix_(rows[good_rows], columns[good_columns])]
    return out


def lift(depth: np.ndarray, matrix: np.ndarray, pose: np.ndarray) -> np.ndarray:
    """Lift a depth map in metres to points h x w x 3 float32; NaN where depth is 0."""
    height, width = depth.shape
    x = (np.arange(width) - matrix[0, 2]) / matrix[0, 0]
    y = (np.arange(height) - matrix[1, 2]) / matrix[1, 1]
    rays = np.stack([*np.meshgrid(x, y), np.ones((height, width))], -1)
    points = (rays * depth[..., None]) @ pose[:3, :3].T + pose[:3, 3]
    return np.where(depth[..., None] > 0, points, np.nan).astype(np.float32)


def load_depth_metres(recording: Recording, calibration: Calibration, index: int, farthest: float) -> np.ndarray:
    """Load the depth of a frame in metres, h x w float32, 0 where unknown or farther than `farthest`."""
    depth = recording.load_depth(index) / np.float32(calibration.units_per_metre)
    return np.where(depth <= farthest, depth, 0).astype(np.float32)


def as_intrinsics(matrix: np.ndarray) -> Intrinsics:
    """Return the four numbers of a pinhole matrix (skew is left out)."""
    return Intrinsics(float(matrix[0, 0]), float(matrix[1, 1]), float(matrix[0, 2]), float(matrix[1, 2]))
