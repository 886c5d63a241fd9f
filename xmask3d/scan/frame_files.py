"""Picture files of a recording: their roles (colour, depth, pose), matching of frames, and loading."""

import contextlib
import re
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from xmask3d.errors import UserError
from xmask3d.guarded import array_type, open_picture
from xmask3d.scan import formats
from xmask3d.scan.intrinsics import find_intrinsics, stated_units
from xmask3d.scan.pairing import best_kind, frame_names, name_keys, names_by, twice_by_number
from xmask3d.scan.recording import Recording

PICTURES = {".jpg", ".jpeg", ".png", ".bmp", ".webp", ".tif", ".tiff"}
DEPTHS = {".png", ".npy", ".npz", ".exr", ".tif", ".tiff", ".pgm", ".pfm"}
ARRAYS = {".npy", ".npz", ".exr", ".pfm", ".bin", ".depth"}
CALIBRATIONS = {".yaml", ".yml", ".pincam", ".json", ".txt", ".csv"}
# Words in file and folder names, and the role of files with these names.
ROLES = {
    "depth": {"depth", "depths", "depthimage", "depthimages", "disparity"},
    "color": {"color", "colors", "colour", "rgb", "image", "images", "img", "photo", "photos", "frames", "wide"},
    "pose": {"pose", "poses", "extrinsic", "extrinsics", "camera_pose", "cam2world", "world2cam"},
    "other": {"vis", "label", "labels", "mask", "masks", "conf", "confidence", "instance", "semantic", "normal",
              "normals", "filt", "segmentation", "preview", "thumbnail", "thumb", "rendered"},
}  # fmt: skip
ROLE_WORDS = set().union(*ROLES.values())
CALIBRATION_FOLDERS = {"calib", "calibration", "intrinsic", "intrinsics"}
SHALLOW = "warning: depth pictures have 8 bits; that is a preview, not a measurement: export depth as 16-bit PNG"
RENDERED = 320 * 240  # number of pixels of rendered depth maps
SIZED = 5  # number of files to read to determine the size of all
TRAJECTORIES = ("groundtruth.txt", "traj.txt", "trajectory.txt", "poses.txt", "pose.txt", "camera_poses.txt",
                "odometry.csv", "CameraTrajectory.txt", "KeyFrameTrajectory.txt")  # fmt: skip


@dataclass
class FrameFiles:
    """Picture files of a folder by role, keyed by their frames.

    Attributes:
        calibration: files with the intrinsics of one frame each.
        repeated: roles for which several folders have the same frames.
        unclear: reasons why frames of one folder cannot be distinguished, one sentence each.
        lossy: pictures named depth whose compression loses values.
        notes: files that were ignored, one sentence each.
    """

    color: dict[str, Path] = field(default_factory=dict)
    depth: dict[str, Path] = field(default_factory=dict)
    pose: dict[str, Path] = field(default_factory=dict)
    calibration: dict[str, Path] = field(default_factory=dict)
    repeated: set[str] = field(default_factory=set)
    unclear: list[str] = field(default_factory=list)
    lossy: list[Path] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)

    def add(self, role: str, names: dict[Path, str]) -> None:
        """Add files of a role, except for frames that already have one."""
        files, twice = getattr(self, role), []
        for path, name in names.items():
            first = files.setdefault(name, path)
            if first.parent != path.parent and role in ("color", "depth"):
                self.repeated.add(role)
            elif first.parent == path.parent and first != path:
                twice.append((first.name, path.name))
        if twice:
            self.notes.append(f"{len(twice)} {role} files are of a frame that has one, as {twice[0][1]} beside "
                              f"{twice[0][0]}, and are not used")  # fmt: skip

    def pair(self, found: dict[str, list[Path]]) -> None:
        """Assign all files to frames by their names."""
        keyed = {role: name_keys(paths, ROLE_WORDS) for role, paths in found.items()}
        color, depth = keyed["color"][0], keyed["depth"][0]
        kind = best_kind(color, depth)
        if kind == "number":
            self.unclear += [*keyed["color"][1], *keyed["depth"][1]]
            self.unclear += [twice for keys in (color, depth) if (twice := twice_by_number(keys))]
        for role, names in zip(("color", "depth"), frame_names(color, depth, kind), strict=True):
            self.add(role, names)
        frames = {path: name for role in ("depth", "color") for name, path in getattr(self, role).items()}
        for role in ("pose", "calibration"):
            self.add(role, names_by(keyed[role][0], frames, color | depth))


def words_of(text: str) -> list[str]:
    """Return the words and numbers of a name in lower case: "depthMap_007" -> depthmap, 007."""
    return [word for word in re.split(r"[^a-zA-Z0-9]+|(?<=[a-zA-Z])(?=\d)", text.lower()) if word]


def _role(path: Path, root: Path) -> str | None:
    """Return the role of a file by its name, or else by its parent folders; depth_to_color means depth."""
    for part in (path.stem, *reversed(path.relative_to(root).parent.parts)):
        words = words_of(part)
        kept = {*(words[: words.index("to")] if "to" in words[1:] else words), part.lower()}
        for role in ("other", "depth", "pose", "color"):
            if kept & ROLES[role]:
                return role
    return None


def _is_deep(path: Path) -> bool:
    with open_picture(path) as picture:
        return picture.mode.startswith(("I", "F"))


def collect_files(folder: Path) -> FrameFiles:
    """Collect the picture, pose and calibration files of a folder and two levels of sub-folders."""
    files = FrameFiles()
    found: dict[str, list[Path]] = {"color": [], "depth": [], "pose": [], "calibration": []}
    unknown: list[Path] = []
    for path in sorted(p for pattern in ("*", "*/*", "*/*/*") for p in formats.list_files(folder, pattern)):
        suffix = path.suffix.lower()
        if suffix in CALIBRATIONS and path.parent != folder and CALIBRATION_FOLDERS & set(words_of(path.parent.name)):
            found["calibration"].append(path)
            continue
        if suffix not in PICTURES | DEPTHS | {".txt"}:
            continue
        role = _role(path, folder)
        if role == "depth" and suffix in DEPTHS:
            found["depth"].append(path)
        elif role == "depth" and suffix in {".jpg", ".jpeg", ".webp"}:
            files.lossy.append(path)
        elif role == "pose" and suffix in {".txt", ".npy"} and path.name not in TRAJECTORIES:
            found["pose"].append(path)
        elif role == "color" and suffix in PICTURES:
            found["color"].append(path)
        elif role is None and suffix in PICTURES:
            unknown.append(path)
    if not (found["color"] and found["depth"]):  # names say nothing: 16-bit pictures are depth, the others colour
        for path in unknown:
            try:
                role = "depth" if path.suffix.lower() in DEPTHS and _is_deep(path) else "color"
            except UserError:
                files.notes.append(f"left out: {path}: cannot be read as a picture")
                continue
            found[role].append(path)
    files.pair(found)
    return files


def recording_of_files(
    kind: str, folder: Path, names: list[str], colors: list[Path], depths: list[Path], poses: np.ndarray
) -> Recording:
    """Make a recording of picture files with matching frames, one of each kind per pose.

    Args:
        depths: depth files; empty if depth is to be rendered, in the size of the networks' input.
    """
    color_size = _size(colors, formats.read_color)
    if not depths:
        return _without_depth(kind, folder, names, colors, poses, color_size)
    depth_size = _size(depths, formats.read_depth)
    floats = depths[0].suffix.lower() in ARRAYS and np.issubdtype(_raw_type(depths), np.floating)
    color_matrices, depth_matrices, notes = find_intrinsics(folder, color_size, depth_size)
    notes += [SHALLOW] if _is_shallow(depths[len(depths) // 2]) else []
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


def _without_depth(
    kind: str, folder: Path, names: list[str], colors: list[Path], poses: np.ndarray, color_size: tuple[int, int]
) -> Recording:
    scale = min(1.0, (RENDERED / (color_size[0] * color_size[1])) ** 0.5)
    depth_size = round(color_size[0] * scale), round(color_size[1] * scale)
    color_matrices, depth_matrices, notes = find_intrinsics(folder, color_size, depth_size)

    def no_depth(index: int) -> np.ndarray:
        raise UserError(f"{colors[index]}: no depth map")

    return Recording(kind, folder, names, _loader(colors, formats.read_color, color_size), no_depth, poses, color_size,
                     depth_size, color_matrices, depth_matrices, notes=notes, rendered=True)  # fmt: skip


def _is_shallow(path: Path) -> bool:
    """Return True if a depth map has only 8 bits, as pictures of depth for viewing have."""
    if path.suffix.lower() in ARRAYS:
        return False
    try:
        with open_picture(path) as picture:
            return picture.mode in ("L", "P", "RGB", "RGBA")
    except UserError:
        return False


def _raw_type(paths: list[Path]) -> np.dtype:
    """Return the dtype of the first readable depth map."""
    for path in paths:
        if path.suffix.lower() in {".npy", ".npz"}:
            with contextlib.suppress(UserError):
                return array_type(path) if path.suffix.lower() == ".npy" else formats.read_values(path).dtype
    return np.dtype(np.float32)


def _size(paths: list[Path], read: Callable[[Path], np.ndarray]) -> tuple[int, int]:
    """Return the most common height and width of a few files; raises the first `UserError` if none is readable."""
    sizes: list[tuple[int, int]] = []
    first: UserError | None = None
    for sample in (paths[:: max(1, len(paths) // SIZED)][:SIZED], paths[:SIZED]):
        for path in sample:
            try:
                height, width = read(path).shape[:2]
            except UserError as error:  # reported later, when all frames are read
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
