"""Camera poses in text files: one per file, or a complete trajectory, with or without titles of columns."""

import re
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from xmask3d.errors import UserError
from xmask3d.scan.formats import MICROSOFT_NAN, NUMBER, read_numbers, read_values, text_of

QUATERNION = ("qx", "qy", "qz", "qw")
# Titles of columns that identify the frame or the time of a line.
MOMENTS = {"frame", "id", "index", "frame_id", "timestamp", "time", "t", "stamp"}
TIME_UNITS = ((1e17, 1e9), (1e14, 1e6), (1e11, 1e3))  # larger times since 1970 are in fractions of a second


@dataclass(frozen=True)
class Trajectory:
    """Poses of one file.

    Attributes:
        poses: n x 4 x 4 as written.
        keys: columns (n each) that may identify the frame or time of a pose; empty if lines have no such number.
        inverse: the format is known to have world-to-camera poses.
    """

    poses: np.ndarray
    keys: tuple[np.ndarray, ...] = ()
    inverse: bool = False


def read_pose(path: Path) -> np.ndarray:
    """Read one 4 x 4 (or 3 x 4) matrix, or translation and quaternion, text or npy; NaN where tracking was lost."""
    values = read_values(path).ravel() if path.suffix == ".npy" else read_numbers(path)
    if len(values) == 7:
        return _seven(values[None])[0]
    if len(values) not in (12, 16):
        raise UserError(f"{path}: a pose has 16 numbers (4 x 4), 12 (3 x 4) or 7 (place and quaternion), "
                        f"this file has {len(values)}")  # fmt: skip
    return matrix_of(values)


def matrix_of(values: np.ndarray) -> np.ndarray:
    """Return a 4 x 4 matrix from its 16 numbers, or from the first 12 of them."""
    pose = np.eye(4)
    pose.ravel()[: len(values)] = values
    return pose


def quaternion_poses(translation: np.ndarray, quaternion: np.ndarray) -> np.ndarray:
    """Convert translations n x 3 and quaternions n x 4 (x, y, z, w), normalised here, to n x 4 x 4 poses."""
    with np.errstate(invalid="ignore"):  # a quaternion of zeros means a lost pose
        x, y, z, w = (quaternion / np.linalg.norm(quaternion, axis=1, keepdims=True)).T
    poses = np.tile(np.eye(4), (len(translation), 1, 1))
    poses[:, 0, :3] = np.stack([1 - 2 * (y * y + z * z), 2 * (x * y - z * w), 2 * (x * z + y * w)], 1)
    poses[:, 1, :3] = np.stack([2 * (x * y + z * w), 1 - 2 * (x * x + z * z), 2 * (y * z - x * w)], 1)
    poses[:, 2, :3] = np.stack([2 * (x * z - y * w), 2 * (y * z + x * w), 1 - 2 * (x * x + y * y)], 1)
    poses[:, :3, 3] = translation
    return poses


def _has_unit_length(quaternions: np.ndarray) -> bool:
    lengths = np.linalg.norm(quaternions, axis=1)
    return bool(np.median(np.abs(lengths - 1)) < 0.01)


def _seven(table: np.ndarray) -> np.ndarray:
    """Return poses from 7 numbers per row; the quaternion is the first or last four, whichever has length 1."""
    if _has_unit_length(table[:, :4]) and not _has_unit_length(table[:, 3:]):
        return quaternion_poses(table[:, 4:], table[:, :4])
    return quaternion_poses(table[:, :3], table[:, 3:])


def _axis_angle_poses(table: np.ndarray) -> np.ndarray:
    """Return poses from rows of an axis times its angle, and a translation (ARKitScenes)."""
    half = np.linalg.norm(table[:, :3], axis=1, keepdims=True) / 2
    return quaternion_poses(table[:, 3:], np.hstack([table[:, :3] * np.sinc(half / np.pi) / 2, np.cos(half)]))


def seconds(times: np.ndarray) -> np.ndarray:
    """Convert times since 1970 in milli-, micro- or nanoseconds to seconds; return others as they are."""
    largest = float(np.abs(times).max(initial=0))
    return times / next((unit for limit, unit in TIME_UNITS if largest > limit), 1.0)


def read_trajectory(path: Path) -> Trajectory:
    """Read all poses of one file.

    The known formats are Redwood / Open3D `.log` (three integers, then 4 x 4), TUM (`time tx ty tz qx qy qz qw` per
    line), ARKitScenes' `.traj`, one matrix of 12 or 16 numbers per line (possibly after the frame's number), 4 x 4 and
    3 x 4 matrices below each other, 7 numbers per line, and any table whose titles name x, y, z, qx, qy, qz and qw.

    Raises:
        UserError: the file has another format.
    """
    rows, titles = _table(path)
    widths = {len(row) for row in rows}
    if rows and len(rows) % 5 == 0 and all(len(row) == (3 if i % 5 == 0 else 4) for i, row in enumerate(rows)):
        poses = np.array([rows[i + 1 : i + 5] for i in range(0, len(rows), 5)])
        return Trajectory(poses, (np.array([row[0] for row in rows[::5]]),))
    if len(widths) == 1 and (read := _reader_of(widths.pop(), len(rows), titles, path.suffix.lower())) is not None:
        return read(np.array(rows))
    raise UserError(
        f"{path}: not a trajectory; known: Redwood .log, TUM 'time t q' lines, 12 or 16 numbers a line, "
        f"matrices below each other, or columns with the titles x y z qx qy qz qw"
    )


def _table(path: Path) -> tuple[list[list[float]], list[str]]:
    """Read lines of numbers, and the titles of the columns if a line (or a comment) names them."""
    rows: list[list[float]] = []
    titles: list[str] = []
    for line in MICROSOFT_NAN.sub("nan", text_of(path)).splitlines():
        if NUMBER.match(line.lstrip(" \t[(")):
            rows.append([float(number) for number in NUMBER.findall(line.replace(",", " "))])
        elif not rows:
            words = re.split(r"[\s,;]+", re.sub(r"\[.*?\]", "", line).strip("#% \t").lower())
            titles = _short_titles(words) if len(words) > 6 else titles
    return rows, titles


def _short_titles(words: list[str]) -> list[str]:
    """Return titles in one spelling: tx, p_x and pos_x are x; q_w, rot_w and qw are qw."""
    titles = []
    for word in words:
        found = re.fullmatch(r"(?:(q)|rot|quat|ori\w*|t|p|pos\w*|tra\w*)?_?(?:\w+_)?([wxyz])", word)
        turned = bool(found) and bool(re.match(r"q|rot|quat|ori", word))
        titles.append(word if not found else f"q{found[2]}" if turned else found[2])
    return titles


def _reader_of(width: int, count: int, titles: list[str], suffix: str) -> Callable[[np.ndarray], Trajectory] | None:
    """Choose the reader for a table by its numbers of columns and rows, or None if such a table is not known."""
    if len(titles) == width and {"x", "y", "z", *QUATERNION} <= set(titles):
        place, turn = ([titles.index(name) for name in names] for names in (("x", "y", "z"), QUATERNION))
        moments = [column for column, title in enumerate(titles) if title in MOMENTS]
        return lambda t: Trajectory(quaternion_poses(t[:, place], t[:, turn]), tuple(t[:, moments].T))
    if width == 4:
        return _stacked if count % 4 == 0 or count % 3 == 0 else None
    readers: dict[int, Callable[[np.ndarray], Trajectory]] = {
        7: lambda t: Trajectory(_seven(t)),
        8: lambda t: Trajectory(_seven(t[:, 1:]), (t[:, 0],)),
        # RTAB-Map: the last column is the frame's number
        9: lambda t: Trajectory(_seven(t[:, 1:8]), (t[:, 0], t[:, 8])),
        12: lambda t: Trajectory(np.stack([matrix_of(row) for row in t])),
        13: lambda t: Trajectory(np.stack([matrix_of(row[1:]) for row in t]), (t[:, 0],)),
    }
    readers |= {16: readers[12], 17: readers[13]}
    if suffix == ".traj":
        readers[7] = lambda t: Trajectory(_axis_angle_poses(t[:, 1:]), (t[:, 0],), inverse=True)
    return readers.get(width)


def _stacked(table: np.ndarray) -> Trajectory:
    """Read matrices below each other: 4 x 4 if every fourth line is the last row of a pose, else 3 x 4."""
    complete = len(table) % 4 == 0 and np.allclose(np.nan_to_num(table[3::4, :3]), 0, atol=1e-6)
    parts = table.reshape(-1, 16 if complete or len(table) % 3 else 12)
    return Trajectory(np.stack([matrix_of(row) for row in parts]))
