"""Small files of RGB-D recordings: pictures, depth maps, poses, trajectories and intrinsics."""

import math
import re
from pathlib import Path
from typing import Any

import numpy as np

from xmask3d import guarded
from xmask3d.errors import UserError, missing_extra
from xmask3d.guarded import MAX_PIXELS, open_picture, read_array, read_text, reading

NUMBER = re.compile(r"[-+]?(?:\d+\.?\d*|\.\d+)(?:[eE][-+]?\d+)?|[-+]?(?:nan|inf)\b", re.IGNORECASE)
MICROSOFT_NAN = re.compile(r"[-+]?1\.#\w+")  # how some recorders on Windows print numbers that are none
MAX_NUMBERS = 1 << 26  # bytes of a text file of poses
TOO_DEEP = 1e6  # a kilometre in millimetres
NO_DEPTH = 65535  # what Kinect recorders write where they measured nothing, beside 0


def read_color(path: Path) -> np.ndarray:
    """Read a picture as h x w x 3 uint8 RGB. Raises `UserError` naming a missing or damaged file."""
    with open_picture(path) as picture:
        return np.asarray(picture.convert("RGB"))


def read_depth(path: Path) -> np.ndarray:
    """Read a depth map as written, h x w: integers of some unit, or floats; 0 where nothing was measured."""
    if path.suffix == ".npy":
        depth = read_array(path, "a depth map")
    elif path.suffix == ".exr":
        depth = _read_exr(path)
    else:
        with open_picture(path) as picture:
            depth = np.asarray(picture)
    depth = depth[..., 0] if depth.ndim == 3 else depth
    if depth.ndim != 2:
        raise UserError(f"{path}: a depth map has height and width, this has the shape {depth.shape}")
    if np.issubdtype(depth.dtype, np.floating):
        return np.where((depth > 0) & (depth < TOO_DEEP), depth, 0).astype(np.float32)  # neither NaN nor infinite
    return np.where((depth <= 0) | (depth == NO_DEPTH), 0, depth).astype(np.float32)


def _read_exr(path: Path) -> np.ndarray:
    try:
        import OpenEXR
    except ImportError as error:
        raise missing_extra(f"{path}: reading depth of EXR files", "formats") from error
    with reading(path, "a depth map in EXR"):
        low, high = OpenEXR.File(str(path), header_only=True).header()["dataWindow"]
        if not 0 < math.prod(int(side) + 1 for side in np.subtract(high, low, dtype=np.int64)) <= MAX_PIXELS:
            raise UserError(f"{path}: damaged, a window from {low} to {high}")
        channels = OpenEXR.File(str(path)).channels()
        if not channels:
            raise UserError(f"{path}: has no channel")
    name = next((name for name in ("Z", "R", "Y", "depth") if name in channels), next(iter(channels)))
    return np.asarray(channels[name].pixels)


def _reason(error: Exception) -> str:
    return (getattr(error, "strerror", None) or str(error)).split("\n")[0][:120]


def read_json(path: Path) -> dict[str, Any]:
    """Read a JSON object. Raises `UserError` for anything else."""
    content = guarded.read_json(path)
    if not isinstance(content, dict):
        raise UserError(f"{path}: expected a JSON object of names and values, found {type(content).__name__}")
    return content


def read_numbers(path: Path) -> np.ndarray:
    """Read all numbers of a text file in order (`nan`, `inf` included)."""
    text = read_text(path, "numbers", errors="replace", most=MAX_NUMBERS)
    lines = (line for line in text.splitlines() if not line.lstrip().startswith("#"))
    return np.array([float(number) for number in NUMBER.findall(MICROSOFT_NAN.sub("nan", "\n".join(lines)))])


def read_pose(path: Path) -> np.ndarray:
    """Read one 4 x 4 (or 3 x 4) matrix, text or npy; NaN or infinite where tracking was lost."""
    values = read_array(path, "a pose").ravel() if path.suffix == ".npy" else read_numbers(path)
    if len(values) not in (12, 16):
        raise UserError(f"{path}: a pose has 16 numbers (4 x 4), this file has {len(values)}")
    return _matrix(values)


def _matrix(values: np.ndarray) -> np.ndarray:
    pose = np.eye(4)
    pose.ravel()[: len(values)] = values
    return pose


def quaternion_poses(translation: np.ndarray, quaternion: np.ndarray) -> np.ndarray:
    """Convert translations n x 3 and quaternions n x 4 (x, y, z, w), normalised here, to n x 4 x 4 poses."""
    with np.errstate(invalid="ignore"):  # a quaternion of zeros is a lost pose
        x, y, z, w = (quaternion / np.linalg.norm(quaternion, axis=1, keepdims=True)).T
    poses = np.tile(np.eye(4), (len(translation), 1, 1))
    poses[:, 0, :3] = np.stack([1 - 2 * (y * y + z * z), 2 * (x * y - z * w), 2 * (x * z + y * w)], 1)
    poses[:, 1, :3] = np.stack([2 * (x * y + z * w), 1 - 2 * (x * x + z * z), 2 * (y * z - x * w)], 1)
    poses[:, 2, :3] = np.stack([2 * (x * z - y * w), 2 * (y * z + x * w), 1 - 2 * (x * x + y * y)], 1)
    poses[:, :3, 3] = translation
    return poses


def read_trajectory(path: Path) -> tuple[np.ndarray | None, np.ndarray]:
    """Read all poses of one file.

    Understands Redwood / Open3D `.log` (three integers, then 4 x 4), TUM (`time tx ty tz qx qy qz qw` a line), and one
    matrix of 12 or 16 numbers a line, perhaps after the frame's number.

    Returns:
        keys n (frame number or time stamp; None where lines have neither) and poses n x 4 x 4 as written.
    """
    rows = []
    for line in read_text(path, "a trajectory", errors="replace", most=MAX_NUMBERS).splitlines():
        if line.strip() and not line.lstrip().startswith("#"):
            rows.append([float(number) for number in NUMBER.findall(line.replace(",", " "))])
    widths = {len(row) for row in rows}
    if rows and len(rows) % 5 == 0 and all(len(row) == (3 if i % 5 == 0 else 4) for i, row in enumerate(rows)):
        keys = np.array([row[0] for row in rows[::5]])
        return keys, np.array([rows[i + 1 : i + 5] for i in range(0, len(rows), 5)])
    if widths == {8}:
        table = np.array(rows)
        return table[:, 0], quaternion_poses(table[:, 1:4], table[:, 4:8])
    if widths in ({12}, {16}):
        return None, np.stack([_matrix(np.array(row)) for row in rows])
    if widths in ({13}, {17}):
        return np.array([row[0] for row in rows]), np.stack([_matrix(np.array(row[1:])) for row in rows])
    raise UserError(f"{path}: not a trajectory; known: Redwood .log, TUM 'time t q' lines, 12 or 16 numbers a line")


def read_intrinsics(path: Path) -> tuple[np.ndarray, tuple[int, int] | None]:
    """Read a pinhole matrix 3 x 3 and, where the file has it, the (height, width) it belongs to.

    Text: 3 x 3, 4 x 4, or `fx fy cx cy` (also after `width height`). JSON: Open3D's `intrinsic_matrix` (by columns),
    or keys fx, fy, cx, cy (RealSense: ppx, ppy), or a matrix under K / camera_matrix; width and height under w / h or
    their full names.

    Raises:
        UserError: anything else.
    """
    if path.suffix == ".json":
        content = guarded.read_json(path)
        try:
            return _intrinsics_of_json(path, content)
        except (TypeError, ValueError, KeyError, AttributeError, OverflowError) as error:
            raise UserError(f"{path}: not understood as intrinsics ({_reason(error)})") from error
    values = read_numbers(path)
    size = None
    if len(values) == 6:
        size, values = (int(values[1]), int(values[0])), values[2:]
    if len(values) == 4:
        fx, fy, cx, cy = values
        return np.array([[fx, 0, cx], [0, fy, cy], [0, 0, 1.0]]), size
    if len(values) in (9, 16):
        side = 3 if len(values) == 9 else 4
        return _checked(values.reshape(side, side)[:3, :3], path), size
    raise UserError(f"{path}: intrinsics are a 3 x 3 or 4 x 4 matrix or 'fx fy cx cy'; this has {len(values)} numbers")


def _intrinsics_of_json(path: Path, content: Any) -> tuple[np.ndarray, tuple[int, int] | None]:
    for key in ("camera", "intrinsics", "intrinsic", "color", "depth"):
        if isinstance(content, dict) and isinstance(content.get(key), dict):
            content = content[key]
    content = {"K": content} if isinstance(content, list) else content
    width, height = (content.get(a, content.get(b)) for a, b in (("width", "w"), ("height", "h")))
    size = (int(height), int(width)) if width and height else None
    if "intrinsic_matrix" in content and np.size(content["intrinsic_matrix"]) == 9:
        flat = np.array(content["intrinsic_matrix"], float)
        matrix = flat.reshape(3, 3).T if flat.ndim == 1 else flat
        return _checked(matrix, path), size
    lower = {str(key).lower(): value for key, value in content.items()}
    if "fx" in lower:
        cx, cy = (float(lower[a] if a in lower else lower[b]) for a, b in (("cx", "ppx"), ("cy", "ppy")))
        fx = float(lower["fx"])
        return np.array([[fx, 0, cx], [0, float(lower.get("fy", fx)), cy], [0, 0, 1.0]]), size
    for key in ("k", "camera_matrix", "matrix"):
        value = lower.get(key)
        value = value.get("data") if isinstance(value, dict) else value
        if value is not None and np.size(value) == 9:
            return _checked(np.array(value, float).reshape(3, 3), path), size
    raise UserError(f"{path}: found neither fx/fy/cx/cy nor intrinsic_matrix nor K")


def _checked(matrix: np.ndarray, path: Path) -> np.ndarray:
    """Accept the matrix or its transpose; refuse anything that is no pinhole matrix."""
    matrix = matrix if abs(matrix[2, 0]) + abs(matrix[2, 1]) < 1e-6 else matrix.T
    fx, fy = matrix[0, 0], matrix[1, 1]
    if not (np.isfinite(matrix).all() and fx > 0 and fy > 0 and abs(matrix[2, 0]) + abs(matrix[2, 1]) < 1e-6):
        raise UserError(f"{path}: not a pinhole matrix (fx {fx:g}, fy {fy:g}); expected fx 0 cx / 0 fy cy / 0 0 1")
    return matrix
