"""Small files of RGB-D recordings: pictures, depth maps, arrays, numbers and intrinsics."""

import math
import re
from collections.abc import Collection
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np

from xmask3d.errors import UserError, missing_extra
from xmask3d.guarded import (
    MAX_PIXELS,
    open_picture,
    read_array,
    read_arrays,
    read_json,
    read_object,
    read_text,
    reading,
    rgb_of,
)

NUMBER = re.compile(r"[-+]?(?:\d+\.?\d*|\.\d+)(?:[eE][-+]?\d+)?|[-+]?(?:nan|inf)\b", re.IGNORECASE)
MICROSOFT_NAN = re.compile(r"[-+]?1\.#\w+")  # notations of some Windows programs for NaN and infinity
MAX_NUMBERS = 1 << 26  # largest size of a text file of poses, in bytes
MAX_SIDE = 1 << 16  # largest side of a picture that intrinsics may state
MAX_FOCAL = 1e6  # largest focal length in pixels
MAX_SKEW = 0.01  # largest entry, as a share of the focal length, where a pinhole matrix has zeros
TOO_DEEP = 1e6  # largest depth value, a kilometre in millimetres
NO_DEPTH = 65535  # values besides 0 that Kinect recorders write for missing measurements
RESULTS = {"labels.ply", "objects.ply"}  # clouds of a result, besides heat_*.ply and the files in its summary.json
LARGEST_ARRAYS = 1 << 30  # largest unpacked size of the arrays in an .npz file, in bytes


def read_color(path: Path) -> np.ndarray:
    """Read a picture as h x w x 3 uint8 RGB. Raises `UserError` naming a missing or damaged file."""
    with open_picture(path) as picture:
        return rgb_of(picture)


def read_depth(path: Path) -> np.ndarray:
    """Read a depth map as written, h x w: integers in some unit, or floats; 0 where nothing was measured."""
    suffix = path.suffix.lower()
    if suffix in {".npy", ".npz"}:
        depth = read_values(path)
    elif suffix == ".exr":
        depth = _read_exr(path)
    elif suffix == ".pfm":
        depth = _read_pfm(path)
    elif suffix == ".depth":
        depth = _read_record3d_depth(path)
    elif suffix == ".bin":
        depth = _read_colmap_depth(path)
    else:
        with open_picture(path) as picture:
            depth = np.asarray(picture)
    depth = depth[..., 0] if depth.ndim == 3 else depth
    if depth.ndim != 2:
        raise UserError(f"{path}: a depth map has height and width, this has the shape {depth.shape}")
    if not depth.size or depth.dtype == bool:
        raise UserError(f"{path}: holds no depth, but {'true and false' if depth.size else 'nothing'}")
    if np.issubdtype(depth.dtype, np.floating):
        depth = depth.astype(np.float32)
        return np.where((depth > 0) & (depth < TOO_DEEP), depth, np.float32(0))  # not NaN or infinite
    return np.where((depth <= 0) | (depth == NO_DEPTH), 0, depth).astype(np.float32)


def read_values(path: Path) -> np.ndarray:
    """Read the array of a .npy file, or the only one of a .npz file, or the one named depth."""
    if path.suffix.lower() == ".npy":
        return read_array(path)
    arrays = read_arrays(path, most=LARGEST_ARRAYS)
    if len(arrays) != 1 and "depth" not in arrays:
        raise UserError(f"{path}: holds the arrays {', '.join(arrays) or 'none'}; name the depth map 'depth'")
    return arrays["depth"] if "depth" in arrays else next(iter(arrays.values()))


def list_files(folder: Path, pattern: str) -> list[Path]:
    """List files below a folder in order, without hidden ones and those of macOS (._NAME and __MACOSX)."""
    found = sorted(path for path in folder.glob(pattern) if path.is_file())
    return [path for path in found if not any(part.startswith((".", "__MACOSX"))
                                              for part in path.relative_to(folder).parts)]  # fmt: skip


def point_clouds(folder: Path, suffixes: Collection[str]) -> list[Path]:
    """List files of a folder with these suffixes, in order, except those of a result written into it."""
    found = [path for path in list_files(folder, "*") if path.suffix.lower() in suffixes]
    if not (folder / "summary.json").is_file():
        return found
    try:
        listed = read_object(folder / "summary.json").get("files")
    except UserError:
        listed = None
    return [
        path
        for path in found
        if path.name not in {*RESULTS, *map(str, listed if isinstance(listed, list) else [])}
        and path.name[:5] != "heat_"
    ]


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


def _read_pfm(path: Path) -> np.ndarray:
    """Read a grey PFM: a header of four words, then float32 from the lowest row up, big-endian if scale > 0."""
    with reading(path, "a depth map in PFM"):
        data = path.read_bytes()
        head = re.match(rb"Pf\s+(\d{1,6})\s+(\d{1,6})\s+([-+]?[\d.]+)\s", data)
        width, height = (int(head[1]), int(head[2])) if head else (0, 0)
        if not head or len(data) != head.end() + 4 * width * height:
            raise UserError(f"{path}: damaged, or no PFM of one channel")
        order = "<f4" if head[3].startswith(b"-") else ">f4"
        return np.frombuffer(data, order, offset=head.end()).reshape(height, width)[::-1]


def _read_colmap_depth(path: Path) -> np.ndarray:
    with reading(path, "a depth map of COLMAP"):
        data = path.read_bytes()
    head = re.match(rb"(\d{1,6})&(\d{1,6})&1&", data)
    width, height = (int(head[1]), int(head[2])) if head else (0, 0)
    if not head or len(data) != head.end() + 4 * width * height:
        raise UserError(f"{path}: damaged, or no depth map of COLMAP; run patch_match_stereo again")
    return np.frombuffer(data, "<f4", offset=head.end()).reshape(height, width)


def _read_record3d_depth(path: Path) -> np.ndarray:
    """Read a depth map of a .r3d file: float32 metres, compressed by LZFSE, in the size stated by the metadata."""
    try:
        import lzfse
    except ImportError as error:
        raise missing_extra(f"{path}: reading depth of Record3D's .r3d", "formats") from error
    height, width = _record3d_size(path.parent.parent / "metadata")
    with reading(path, "a depth map of Record3D"):
        data = path.read_bytes()
        values = np.frombuffer(lzfse.decompress(data), "<f4")
        return values.reshape(height, width)


@lru_cache(maxsize=4)
def _record3d_size(path: Path) -> tuple[int, int]:
    content = read_object(path)
    with reading(path, "metadata of Record3D"):
        return int(content["dh"]), int(content["dw"])


def text_of(path: Path) -> str:
    """Read the text of a small file, whatever the encoding of its names and comments."""
    return read_text(path, "text", errors="replace", most=MAX_NUMBERS)


def read_numbers(path: Path) -> np.ndarray:
    """Read all numbers of a text file in order (`nan`, `inf` included)."""
    lines = (line for line in text_of(path).splitlines() if not line.lstrip().startswith("#"))
    return np.array([float(number) for number in NUMBER.findall(MICROSOFT_NAN.sub("nan", "\n".join(lines)))])


def read_intrinsics(path: Path) -> tuple[np.ndarray, tuple[int, int] | None]:
    """Read a 3 x 3 pinhole matrix and, if the file states it, the (height, width) of its pictures.

    Text: 3 x 3, 4 x 4, or `fx fy cx cy` (also after `width height`). JSON: Open3D's `intrinsic_matrix` (by columns),
    or keys fx, fy, cx, cy (RealSense: ppx, ppy), or a matrix under K / camera_matrix; width and height under w / h or
    their full names.

    Raises:
        UserError: the content has another form.
    """
    with reading(path, "intrinsics"):
        if path.suffix == ".json":
            matrix, size = _intrinsics_of_json(path, read_json(path))
        elif path.suffix in {".yaml", ".yml"}:
            matrix, size = _intrinsics_of_json(path, _yaml_values(text_of(path)))
        else:
            matrix, size = _intrinsics_of_numbers(path, read_numbers(path))
        if size is not None and not all(1 <= side <= MAX_SIDE for side in size):
            raise UserError(f"{path}: its pictures of {size[1]} x {size[0]} pixels are none")
        return checked_matrix(matrix, path), size


def _intrinsics_of_numbers(path: Path, values: np.ndarray) -> tuple[np.ndarray, tuple[int, int] | None]:
    size = None
    if len(values) == 6:
        size, values = (int(values[1]), int(values[0])), values[2:]
    if len(values) == 4:
        fx, fy, cx, cy = values
        return np.array([[fx, 0, cx], [0, fy, cy], [0, 0, 1.0]]), size
    if len(values) in (9, 16):
        side = 3 if len(values) == 9 else 4
        return values.reshape(side, side)[:3, :3], size
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
        return matrix, size
    lower = {str(key).lower(): value for key, value in content.items()}
    if "fx" in lower:
        cx, cy = (float(lower[a] if a in lower else lower[b]) for a, b in (("cx", "ppx"), ("cy", "ppy")))
        fx = float(lower["fx"])
        return np.array([[fx, 0, cx], [0, float(lower.get("fy", fx)), cy], [0, 0, 1.0]]), size
    for key in ("k", "camera_matrix", "matrix"):
        value = lower.get(key)
        value = value.get("data") if isinstance(value, dict) else value
        if value is not None and np.size(value) == 9:
            return np.array(value, float).reshape(3, 3), size
    raise UserError(f"{path}: found neither fx/fy/cx/cy nor intrinsic_matrix nor K")


def _yaml_values(text: str) -> dict[str, Any]:
    """Read OpenCV's YAML (RTAB-Map, ROS: camera_matrix; ORB-SLAM: Camera.fx), which YAML parsers refuse."""
    values: dict[str, Any] = {}
    matrix = re.search(r"camera_matrix:.*?data:\s*\[([^\]]*)\]", text, re.DOTALL)
    if matrix:
        values["K"] = [float(number) for number in NUMBER.findall(matrix[1])]
    for key in ("fx", "fy", "cx", "cy", "width", "height"):
        found = re.search(rf"(?:\b|_){key}:\s*({NUMBER.pattern})", text)
        values |= {key: float(found[1])} if found else {}
    return values


def checked_matrix(matrix: np.ndarray, path: Path) -> np.ndarray:
    """Check a pinhole matrix; its transpose and a negative fy (rows counted upwards) are accepted too."""
    matrix = matrix if abs(matrix[2, 0]) + abs(matrix[2, 1]) < 1e-6 else matrix.T
    if matrix[1, 1] < 0 < matrix[0, 0]:
        matrix = np.where([[False] * 3, [False, True, False], [False] * 3], -matrix, matrix)
    fx, fy = matrix[0, 0], matrix[1, 1]
    rest = np.abs(matrix - [[fx, 0, matrix[0, 2]], [0, fy, matrix[1, 2]], [0, 0, 1]]).max()
    if not (np.abs(matrix).max() < MAX_FOCAL and fx > 0 and fy > 0 and rest <= MAX_SKEW * fx):
        raise UserError(f"{path}: not a pinhole matrix (fx {fx:g}, fy {fy:g}); expected fx 0 cx / 0 fy cy / 0 0 1")
    return matrix
