"""Checks of measurements from files: points, colours, labels, poses and cameras.

Values that clearly have another meaning are repaired and reported; impossible ones are refused with the file's name.
"""

from collections.abc import Callable
from pathlib import Path

import numpy as np

from xmask3d.errors import UserError
from xmask3d.geometry.camera import Intrinsics

FAR = 1e7
"""Largest distance from the origin in metres; no coordinate of a map is larger."""

ROUNDING = 1e-2
"""Amount by which colours may exceed 1 through rounding."""

MAX_LABEL = 1 << 20
RIGID = 0.05
"""Largest difference, in any entry, of a rotation times its transpose from the identity."""

Tell = Callable[[str], object]


def checked_points(points: np.ndarray, source: Path | str) -> np.ndarray:
    """Return points n x 3 unchanged, after checks.

    Raises:
        UserError: the shape is wrong, or some points are NaN, infinite or beyond any map.
    """
    if points.ndim != 2 or points.shape[1] != 3:
        raise UserError(f"{source}: points are {points.shape}, expected n x 3")
    if not np.isfinite(points).all():
        raise UserError(f"{source}: has points that are NaN or infinite")
    if len(points) and max(points.max(), -points.min()) > FAR:
        raise UserError(f"{source}: has points {np.abs(points).max():.2g} m away, which no scan measures")
    return points


def checked_colors(colors: np.ndarray, source: Path | str, tell: Tell) -> np.ndarray:
    """Return colours n x 3 float32 in [-1, 1], after checks.

    A few colours that are NaN or infinite become mid-grey, and bytes (0 to 255) are scaled to [-1, 1]; both are
    reported.

    Raises:
        UserError: most colours are NaN or infinite, or they have another range.
    """
    finite = np.isfinite(colors).all(1)
    if not finite.all():
        bad = int((~finite).sum())
        if bad > len(colors) // 2:
            raise UserError(f"{source}: has colours that are NaN or infinite, {bad} of {len(colors)}")
        tell(f"{source}: {bad} of {len(colors)} points have colours that are NaN or infinite; taken as grey")
        colors = np.where(finite[:, None], colors, 0)
    low, high = (float(colors.min()), float(colors.max())) if len(colors) else (0.0, 0.0)
    if low >= -1 and high <= 1:
        return colors
    if low >= -1 - ROUNDING and high <= 1 + ROUNDING:
        return np.clip(colors, -1, 1)
    if low >= 0 and high <= 255:
        if not finite.all():  # grey in bytes
            colors = np.where(finite[:, None], colors, 127.5)
        tell(f"{source}: colours are {low:g} to {high:g}, expected -1 to 1; taken as bytes")
        return (colors / 127.5 - 1).astype(np.float32)
    raise UserError(f"{source}: colours are {low:g} to {high:g}, expected -1 to 1 (bytes / 127.5 - 1)")


def checked_labels(labels: np.ndarray, count: int, source: Path | str) -> np.ndarray:
    """Return the label ids of `count` points as int64.

    Raises:
        UserError: the number of labels is wrong, or some are no integers or larger than the id of any class.
    """
    labels = labels.reshape(-1)
    if len(labels) != count:
        raise UserError(f"{source}: {len(labels)} labels for another number of points, {count}")
    if labels.dtype.kind == "f" and not (np.isfinite(labels) & (labels == np.trunc(labels))).all():
        raise UserError(f"{source}: has labels that are no whole numbers")
    if len(labels) and (labels.max() > MAX_LABEL or int(labels.min()) < -MAX_LABEL):
        raise UserError(f"{source}: has labels from {labels.min():g} to {labels.max():g}, which no list of classes has")
    return labels.astype(np.int64)


def checked_pose(pose: np.ndarray, source: Path | str) -> np.ndarray:
    """Return a camera-to-world pose unchanged, if it is 4 x 4 and finite.

    Raises:
        UserError: the pose is no rigid motion, or its position is beyond any map.
    """
    rotation = pose[:3, :3]
    if np.abs(rotation @ rotation.T - np.eye(3)).max() > RIGID or np.linalg.det(rotation) < 0:
        raise UserError(f"{source}: not a 4 x 4 camera pose, its rotation is none")
    if np.abs(pose[3] - (0, 0, 0, 1)).max() > 1e-3:
        raise UserError(f"{source}: not a 4 x 4 camera pose, its last row is not 0 0 0 1")
    if np.abs(pose[:3, 3]).max() > FAR:
        raise UserError(f"{source}: the camera is {np.abs(pose[:3, 3]).max():.2g} m away")
    return pose


def checked_camera(camera: Intrinsics, size: tuple[int, int], source: Path | str) -> Intrinsics:
    """Return a pinhole camera unchanged, after checks.

    Args:
        size: (height, width) of its pictures.

    Raises:
        UserError: the principal point is outside the picture, or the field of view is impossible.
    """
    if not (0 < camera.cx < size[1] and 0 < camera.cy < size[0] and camera.fx > 0 and camera.fy > 0):
        raise UserError(f"{source}: the principal point is outside a frame of {size[0]} x {size[1]} pixels")
    longest = max(size)
    if not (0.1 < camera.fx / longest < 50 and 0.1 < camera.fy / longest < 50 and 0.2 < camera.fx / camera.fy < 5):
        raise UserError(
            f"{source}: focal lengths {camera.fx:g} and {camera.fy:g} are none of frames of "
            f"{size[0]} x {size[1]} pixels"
        )
    return camera
