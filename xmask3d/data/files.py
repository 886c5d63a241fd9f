"""Files of a processed scan: scene tuples, pictures, poses, intrinsics. Every error message names the path."""

import io
import logging
import pickle
import struct
import zipfile
from pathlib import Path
from typing import Any

import numpy as np
from PIL.PngImagePlugin import PngImageFile

from xmask3d.data.measurements import Tell, checked_camera, checked_colors, checked_labels, checked_points, checked_pose
from xmask3d.data.scene_pickle import unpickle
from xmask3d.errors import UserError
from xmask3d.files import atomic_write
from xmask3d.geometry.camera import SCANNET_DEPTH_INTRINSICS, Intrinsics
from xmask3d.guarded import open_picture, read_text, reading, rgb_of
from xmask3d.seal import Checked

log = logging.getLogger(__name__)

MAX_MATRIX = 1 << 16  # largest size of a text file with a matrix, in bytes


class LostPose(UserError):
    """Error that a pose has infinities, by which ScanNet marks frames whose camera pose is unknown."""


def read_tuple(path: Path) -> tuple:
    """Read a `torch.save`d tuple of numpy arrays without executing anything.

    Both formats of `torch.save` are read: the zip archive, and the stream of pickles before torch 1.6.

    Raises:
        UserError: the file is missing, truncated, of another kind, or contains anything but plain values and arrays.
    """
    with reading(path, "a tuple of numpy arrays"):
        if zipfile.is_zipfile(path):
            value = _read_archive(path)
        else:
            with open(path, "rb") as stream:
                for _ in range(3):  # magic number, protocol, system information
                    unpickle(stream)
                value = unpickle(stream)
    if not isinstance(value, tuple):
        raise UserError(f"{path}: expected a tuple (points, colours, labels), found {type(value).__name__}")
    return value


def _read_archive(path: Path) -> Any:
    with zipfile.ZipFile(path) as archive:
        entry = next((e for e in archive.infolist() if e.filename.endswith("data.pkl")), None)
        if entry is None:
            raise pickle.UnpicklingError("the archive has no data.pkl")
        if entry.compress_type != zipfile.ZIP_STORED:
            raise pickle.UnpicklingError("compressed, which torch.save never does")
        if not _sound.holds(path):
            value = unpickle(io.BytesIO(archive.read(entry)))  # `read` compares the checksum
            _sound.add(path)
            return value
    # A file that was intact a moment ago is neither checked again nor copied before it is read, which halves the time.
    with open(path, "rb") as stream:
        stream.seek(entry.header_offset)
        header = stream.read(30)
        stream.seek(entry.header_offset + 30 + sum(struct.unpack("<HH", header[26:30])))
        return unpickle(stream, checked=True)


_sound = Checked()  # files whose checksum this process has verified


def read_points(path: Path, tell: Tell = log.warning) -> tuple[np.ndarray, np.ndarray, np.ndarray | None]:
    """Read a processed scene: points n x 3 float32, colours n x 3 float32 in [-1, 1], file label ids n int64 or None.

    A scalar in place of the colours, for a scan without any, gives zeros.

    Args:
        tell: function that reports a repair, see `checked_colors`.
    """
    parts = read_tuple(path)
    if len(parts) < 2:
        raise UserError(f"{path}: expected (points, colours, labels), found {len(parts)} entries")
    points = checked_points(np.ascontiguousarray(parts[0], np.float32), path)
    colors = np.asarray(parts[1], np.float32)
    colors = np.zeros_like(points) if colors.ndim == 0 else np.ascontiguousarray(colors)
    if colors.shape != points.shape:
        raise UserError(f"{path}: {len(points)} points, but colours of another number")
    labels = None if len(parts) < 3 or parts[2] is None else checked_labels(np.asarray(parts[2]), len(points), path)
    return points, checked_colors(colors, path, tell), labels


def write_points(path: Path, points: np.ndarray, colors: np.ndarray, labels: np.ndarray) -> None:
    """Write a scene as `read_points` reads it and as the published files are: a tuple of float arrays."""
    import torch  # imported here because it takes seconds, and readers do not need it

    value = (np.asarray(points, np.float32), np.asarray(colors, np.float32), np.asarray(labels, np.float64))
    buffer = io.BytesIO()  # with a path instead, torch would store the temporary name in the file
    torch.save(value, buffer, pickle_protocol=4)
    atomic_write(path, buffer.getvalue())


def visible_files(folder: Path) -> list[Path]:
    """List the visible files of a folder, sorted by name; none if it is missing. Unfinished files are hidden."""
    if not folder.is_dir():
        return []
    return sorted(path for path in folder.iterdir() if not path.name.startswith("."))


def read_picture(path: Path, mode: str | None = None) -> np.ndarray:
    """Decode a picture: h x w x 3 uint8 for mode "RGB", otherwise h x w in its own integer type.

    Raises:
        UserError: the file is missing, truncated or not a picture.
    """
    with open_picture(path) as picture:
        if mode is not None:
            return rgb_of(picture) if mode == "RGB" else np.asarray(picture.convert(mode))
        if isinstance(picture, PngImageFile) and picture.mode in ("I", "I;16", "I;16B"):
            return np.asarray(picture).astype(np.uint16)
        return np.asarray(picture)


def picture_size(path: Path) -> tuple[int, int] | None:
    """Read (height, width) from the header of a picture file; None if it cannot be read."""
    try:
        with open_picture(path) as picture:
            return picture.height, picture.width
    except UserError:
        return None


def read_matrix(path: Path) -> np.ndarray:
    """Read a square matrix of numbers as text, float64.

    Raises:
        UserError: the file is missing, is not a 3 x 3 or 4 x 4 matrix, or contains NaN or infinity.
    """
    matrix = _read_square(path)
    if not np.isfinite(matrix).all():
        raise UserError(f"{path}: the matrix has NaN or infinity")
    return matrix


def _read_square(path: Path) -> np.ndarray:
    text = read_text(path, "a matrix of numbers", most=MAX_MATRIX)
    with reading(path, "a matrix of numbers"):
        numbers = [float(word) for word in text.split()]
    side = {9: 3, 16: 4}.get(len(numbers))
    if side is None:
        raise UserError(f"{path}: holds {len(numbers)} numbers, expected a 3 x 3 or 4 x 4 matrix")
    return np.array(numbers).reshape(side, side)


def read_pose(path: Path) -> np.ndarray:
    """Read a camera-to-world pose: 4 x 4 float64, a rigid motion.

    Raises:
        UserError: the file is missing or has no such matrix.
        LostPose: the matrix has infinities.
    """
    pose = _read_square(path)
    if not np.isfinite(pose).all():
        raise (UserError if np.isnan(pose).any() else LostPose)(f"{path}: the pose has NaN or infinity")
    if pose.shape != (4, 4):
        raise UserError(f"{path}: not a 4 x 4 camera pose")
    return checked_pose(pose, path)


def read_intrinsics(folder: Path, frame_size: tuple[int, int], stored_size: tuple[int, int]) -> Intrinsics | None:
    """Find the intrinsics of a folder of frames, on the grid `frame_size`.

    `intrinsics.txt` (in the folder or above it) is for the size of the stored frames; `intrinsic/intrinsic_depth.txt`,
    which ScanNet's own exporter writes, is for its depth camera, 480 x 640.

    Returns:
        None if the folder has neither file.
    """
    for path, size in zip(intrinsics_files(folder), (stored_size, (480, 640), stored_size), strict=True):
        if path.is_file():
            return read_camera(path, size, frame_size)
    return None


def read_camera(path: Path, stored_size: tuple[int, int], frame_size: tuple[int, int]) -> Intrinsics:
    """Read intrinsics that are on the grid `stored_size`, and return them on the grid `frame_size`."""
    matrix = read_matrix(path)
    found = Intrinsics(matrix[0, 0], matrix[1, 1], matrix[0, 2], matrix[1, 2])
    return checked_camera(found, stored_size, path).scaled(stored_size, frame_size)


def intrinsics_files(folder: Path) -> tuple[Path, Path, Path]:
    """Return the possible files of intrinsics for a folder of frames, in the order of preference."""
    return folder / "intrinsics.txt", folder / "intrinsic" / "intrinsic_depth.txt", folder.parent / "intrinsics.txt"


def published_intrinsics(frame_size: tuple[int, int]) -> Intrinsics:
    """Return the camera that the published pipeline uses for every scan, on the grid `frame_size`."""
    return SCANNET_DEPTH_INTRINSICS.scaled((480, 640), frame_size)
