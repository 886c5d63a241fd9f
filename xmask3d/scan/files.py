"""Picture files of a recording: which hold colour, depth and poses, which belong together, and how they are loaded."""

import contextlib
import re
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
from PIL import Image

from xmask3d.errors import UserError
from xmask3d.scan import formats
from xmask3d.scan.intrinsics import find_intrinsics, stated_units
from xmask3d.scan.recording import Recording

PICTURES = {".jpg", ".jpeg", ".png", ".bmp", ".webp", ".tif", ".tiff"}
DEPTHS = {".png", ".npy", ".exr", ".tif", ".tiff", ".pgm"}
# Words in file and folder names, and what a file of that name holds.
ROLES = {
    "depth": {"depth", "depths", "depthimage", "depthimages", "disparity"},
    "color": {"color", "colors", "colour", "rgb", "image", "images", "img", "photo", "photos", "frames"},
    "pose": {"pose", "poses", "extrinsic", "extrinsics", "camera_pose", "cam2world", "world2cam"},
    "other": {"vis", "label", "labels", "mask", "masks", "conf", "confidence", "instance", "semantic", "normal",
              "normals", "filt", "segmentation", "preview", "thumbnail", "thumb", "rendered"},
}  # fmt: skip
SHALLOW = "warning: depth pictures have 8 bits; that is a preview, not a measurement: export depth as 16-bit PNG"
SIZED = 5  # files that are read to find out the size of all
TRAJECTORIES = ("groundtruth.txt", "traj.txt", "trajectory.txt", "poses.txt", "pose.txt", "camera_poses.txt")


@dataclass
class FrameFiles:
    """Picture files of a folder by role, each keyed by its frame; `repeated` names roles where a key came twice."""

    color: dict[str, Path] = field(default_factory=dict)
    depth: dict[str, Path] = field(default_factory=dict)
    pose: dict[str, Path] = field(default_factory=dict)
    repeated: set[str] = field(default_factory=set)

    def add(self, role: str, path: Path) -> None:
        """Take a file unless its frame already has one of that role."""
        files = getattr(self, role)
        first = files.setdefault(_key(path), path)
        if first.parent != path.parent and role != "pose":
            self.repeated.add(role)


def words_of(text: str) -> list[str]:
    """Words and numbers of a name in lower case: "depthMap_007" -> depthmap, 007."""
    return [word for word in re.split(r"[^a-zA-Z0-9]+|(?<=[a-zA-Z])(?=\d)", text.lower()) if word]


def _role(path: Path, root: Path) -> str | None:
    """What a file holds, by the words of its name, else of the folders above it."""
    for part in (path.stem, *reversed(path.relative_to(root).parent.parts)):
        words = set(words_of(part)) | {part.lower()}
        for role in ("other", "depth", "pose", "color"):
            if words & ROLES[role]:
                return role
    return None


def _key(path: Path) -> str:
    """The frame a file belongs to: the (last) number in its name without leading zeros, else the name itself."""
    stem = ".".join(w for w in path.stem.split(".") if w.lower() not in set().union(*ROLES.values()))
    numbers = re.findall(r"\d+(?:\.\d+)?", stem)
    return (numbers[-1].lstrip("0") or "0") if numbers else stem


def _is_deep(path: Path) -> bool:
    with Image.open(path) as picture:
        return picture.mode.startswith(("I", "F"))


def collect_files(folder: Path) -> FrameFiles:
    files = FrameFiles()
    unknown: list[Path] = []
    for path in sorted(p for pattern in ("*", "*/*", "*/*/*") for p in folder.glob(pattern)):
        suffix = path.suffix.lower()
        if suffix not in PICTURES | DEPTHS | {".txt"} or path.name.startswith(".") or not path.is_file():
            continue
        role = _role(path, folder)
        if role == "depth" and suffix in DEPTHS:
            files.add("depth", path)
        elif role == "pose" and suffix in {".txt", ".npy"} and path.name not in TRAJECTORIES:
            files.add("pose", path)
        elif role == "color" and suffix in PICTURES:
            files.add("color", path)
        elif role is None and suffix in PICTURES:
            unknown.append(path)
    if not (files.color and files.depth):  # no telling names: 16-bit pictures are depth, the others colour
        for path in unknown:
            files.add("depth" if path.suffix.lower() in DEPTHS and _is_deep(path) else "color", path)
    return files


def frame_order(key: str) -> tuple[float, str]:
    try:
        return float(key), key
    except ValueError:
        return float("inf"), key


def recording_of_files(
    kind: str, folder: Path, names: list[str], colors: list[Path], depths: list[Path], poses: np.ndarray
) -> Recording:
    color_size, depth_size = _size(colors, formats.read_color), _size(depths, formats.read_depth)
    floats = depths[0].suffix in {".npy", ".exr"} and np.issubdtype(_raw_type(depths), np.floating)
    color_matrices, depth_matrices = find_intrinsics(folder, color_size, depth_size)
    notes = [SHALLOW] if _is_shallow(depths[len(depths) // 2]) else []
    return Recording(
        kind=kind,
        path=folder,
        names=names,
        load_color=_loader(colors, formats.read_color, color_size),
        load_depth=_loader(depths, formats.read_depth, depth_size),
        poses=poses,
        color_size=color_size,
        depth_size=depth_size,
        color_matrices=color_matrices,
        depth_matrices=depth_matrices,
        units=(1.0, 1000.0) if floats else stated_units(folder) or Recording.units,
        notes=notes,
    )


def _is_shallow(path: Path) -> bool:
    """Whether a depth map has 8 bits only, as pictures of depth for the eye have."""
    if path.suffix in {".npy", ".exr"}:
        return False
    try:
        with Image.open(path) as picture:
            return picture.mode in ("L", "P", "RGB", "RGBA")
    except (OSError, ValueError, SyntaxError):
        return False


def _raw_type(paths: list[Path]) -> np.dtype:
    """Type of the first depth map that can be read."""
    for path in paths:
        if path.suffix == ".npy":
            with contextlib.suppress(OSError, ValueError, EOFError):
                return np.load(path, mmap_mode="r").dtype
    return np.dtype(np.float32)


def _size(paths: list[Path], read: Callable[[Path], np.ndarray]) -> tuple[int, int]:
    """Height and width that most of a few files have; raises the first one's `UserError` if none can be read."""
    sizes: list[tuple[int, int]] = []
    first: UserError | None = None
    for sample in (paths[:: max(1, len(paths) // SIZED)][:SIZED], paths[:SIZED]):
        for path in sample:
            try:
                height, width = read(path).shape[:2]
            except UserError as error:  # told where all frames are read
                first = first or error
                continue
            sizes.append((height, width))
        if sizes:
            break
    else:
        raise first or UserError("no pictures")
    return max(dict.fromkeys(sizes), key=sizes.count)


def _loader(paths: list[Path], read: Callable[[Path], np.ndarray], size: tuple[int, int]) -> Callable:
    def load(index: int) -> np.ndarray:
        picture = read(paths[index])
        if picture.shape[:2] != size:
            raise UserError(f"{paths[index]}: is {picture.shape[1]} x {picture.shape[0]} pixels, "
                            f"the others are {size[1]} x {size[0]}")  # fmt: skip
        return picture

    return load
