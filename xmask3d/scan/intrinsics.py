"""Intrinsics and depth unit stated in a recording's files."""

import re
from pathlib import Path

import numpy as np

from xmask3d.errors import UserError
from xmask3d.geometry.camera import scale_matrix
from xmask3d.scan import formats
from xmask3d.scan.recording import Recording

ASSUMED = "no file, assumed"
GIVEN = "as given"
FOCALS = ((525.0, "Kinect, 525 pixels at 640 x 480"), (585.0, "Kinect depth, 585 pixels at 640 x 480"))


def stated_units(folder: Path) -> tuple[float, ...] | None:
    """Find the units per metre stated in a file of the recording (3RScan, Replica, ScanNet's info files)."""
    for path in _info_files(folder):
        keys = r"(?:m_depthShift|depthShift|depth_scale|\"scale\")\"?"
        found = re.search(rf"{keys}\s*[=:]\s*({formats.NUMBER.pattern})", formats.text_of(path))
        if found and 1e-6 <= float(found[1]) <= 1e6:
            value = float(found[1])
            stated = float(f"{value if value >= 1 else 1 / value:.6g}")  # 9.999999747378752e-05 is 1e-4 in 32 bits
            return (stated, *(unit for unit in Recording.units if unit != stated))
    return None


def _info_files(folder: Path) -> list[Path]:
    names = ("_info.txt", "info.txt", "cam_params.json", "camera.json", "intrinsics.json", f"{folder.name}.txt")
    found = [base / name for base in (folder, folder / "intrinsic", folder.parent) for name in names]
    return [path for path in found if path.is_file() and path.stat().st_size < 100_000]


def find_intrinsics(
    folder: Path, color_size: tuple[int, int], depth_size: tuple[int, int]
) -> tuple[list[tuple[str, np.ndarray]], list[tuple[str, np.ndarray]], list[str]]:
    """Find candidates for the intrinsics of colour and depth pictures, the most likely first (description, 3 x 3).

    Returns:
        Candidates for colour, candidates for depth, and notes about files that were not understood.
    """
    found: dict[str, list[tuple[str, np.ndarray, tuple[int, int] | None]]] = {"color": [], "depth": [], "": []}
    notes = []
    for read, path in [
        *((_named_matrix, path) for path in _intrinsics_files(folder)),
        *((_info_matrices, path) for path in _info_files(folder)),
    ]:
        try:
            for role, (matrix, size) in read(path).items():
                found[role].append((path.name, matrix, size))
        except UserError as error:
            notes.append(f"warning: not used: {error}; correct it or give --intrinsics FX FY CX CY")
    color = _candidates(found["color"] + found[""] + found["depth"], color_size, (color_size, depth_size))
    depth = _candidates(found["depth"] + found[""] + found["color"], depth_size, (color_size, depth_size))
    return color, depth, notes


def _intrinsics_files(folder: Path) -> list[Path]:
    patterns = ("*intrinsic*.txt", "*intrinsic*.json", "intrinsic*/*.txt", "K.txt", "calib*.txt", "cam_params.json",
                "camera.json", "camera.txt", "cameras/*intrinsic*.txt", "camera_matrix.csv", "calib*.y*ml",
                "camera*.y*ml")  # fmt: skip
    paths = [p for base in (folder, folder.parent) for pattern in patterns for p in formats.list_files(base, pattern)]
    return [path for path in dict.fromkeys(paths) if "extrinsic" not in path.name.lower()]


def frame_intrinsics(
    paths: list[Path], color_size: tuple[int, int], depth_size: tuple[int, int]
) -> tuple[np.ndarray, np.ndarray]:
    """Read intrinsics of colour and depth pictures, n x 3 x 3 each, from one file per frame."""
    color: list[np.ndarray] = []
    depth: list[np.ndarray] = []
    for path in paths:
        matrix, size = formats.read_intrinsics(path)
        for matrices, wanted in ((color, color_size), (depth, depth_size)):
            matrices.append(scale_matrix(matrix, size or _natural_size(matrix, (color_size, depth_size)), wanted))
    return np.stack(color), np.stack(depth)


def _natural_size(matrix: np.ndarray, sizes: tuple[tuple[int, int], ...]) -> tuple[int, int]:
    """Guess the size of the pictures for a matrix, since the principal point is near the middle."""
    natural = (round(2 * matrix[1, 2] + 1), round(2 * matrix[0, 2] + 1))
    near = min(sizes, key=lambda s: abs(s[0] - natural[0]) + abs(s[1] - natural[1]))
    return near if abs(near[1] - natural[1]) / near[1] < 0.25 else natural


def _named_matrix(path: Path) -> dict[str, tuple[np.ndarray, tuple[int, int] | None]]:
    """Read the matrix of a file whose name says whether it is of colour or depth."""
    name = path.stem.lower()
    role = "depth" if "depth" in name else "color" if "color" in name or "rgb" in name else ""
    return {role: formats.read_intrinsics(path)}


def _info_matrices(path: Path) -> dict[str, tuple[np.ndarray, tuple[int, int] | None]]:
    """Read matrices of `key = value` files: ScanNet's <scene>.txt and 3RScan's _info.txt."""
    matrices, text = {}, formats.text_of(path)
    for role in ("color", "depth"):
        values = [re.search(rf"{key}_{role}\s*=\s*({formats.NUMBER.pattern})", text)
                  for key in ("fx", "fy", "mx", "my")]  # fmt: skip
        if all(values):
            fx, fy, cx, cy = (float(value[1]) for value in values if value)
            matrices[role] = np.array([[fx, 0, cx], [0, fy, cy], [0, 0, 1.0]])
        line = re.search(rf"m_calibration{role.capitalize()}Intrinsic\s*=\s*(.+)", text)
        if line and len(numbers := formats.NUMBER.findall(line[1])) == 16:
            matrices[role] = np.array(numbers, float).reshape(4, 4)[:3, :3]
    return {role: (formats.checked_matrix(matrix, path), None) for role, matrix in matrices.items()}


def _candidates(
    found: list[tuple[str, np.ndarray, tuple[int, int] | None]],
    size: tuple[int, int],
    sizes: tuple[tuple[int, int], ...],
) -> list[tuple[str, np.ndarray]]:
    """Return matrices rescaled to pictures of `size` from the size for which they seem to be made."""
    candidates = []
    for words, matrix, stated in found:
        origin = stated or _natural_size(matrix, sizes)
        note = words if origin == size else f"{words}, rescaled from {origin[1]} x {origin[0]}"
        candidates.append((note, scale_matrix(matrix, origin, size)))
        if origin != size:
            candidates.append((f"{words} as written", matrix))
    for focal, words in FOCALS:
        scaled = focal * size[1] / 640
        matrix = np.array([[scaled, 0, (size[1] - 1) / 2], [0, scaled, (size[0] - 1) / 2], [0, 0, 1.0]])
        candidates.append((f"{ASSUMED} {words}", matrix))
    return candidates
