"""Picture files of a recording: roles (colour, depth, pose), matching of frames, and loading."""

import contextlib
import re
from collections import defaultdict
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from xmask3d.errors import UserError
from xmask3d.guarded import array_type, open_picture
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
NUMBER = re.compile(r"\d+(?:\.\d+)?")
TRAJECTORIES = ("groundtruth.txt", "traj.txt", "trajectory.txt", "poses.txt", "pose.txt", "camera_poses.txt")


@dataclass
class FrameFiles:
    """Picture files of a folder by role, each keyed by its frame.

    Attributes:
        repeated: roles where folders have the same frames.
        unclear: what keeps frames of one folder from being told apart, one sentence each.
        notes: what was passed over, one sentence each.
    """

    color: dict[str, Path] = field(default_factory=dict)
    depth: dict[str, Path] = field(default_factory=dict)
    pose: dict[str, Path] = field(default_factory=dict)
    repeated: set[str] = field(default_factory=set)
    unclear: list[str] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)

    def add(self, role: str, paths: list[Path]) -> None:
        """Take files of a role, but for those whose frame already has one."""
        files, twice = getattr(self, role), []
        for path, key in self._keys(paths):
            first = files.setdefault(key, path)
            if first.parent != path.parent and role != "pose":
                self.repeated.add(role)
            elif first.parent == path.parent and first != path:
                twice.append((first.name, path.name))
        if twice:
            self.notes.append(f"{len(twice)} {role} files are of a frame that has one, as {twice[0][1]} beside "
                              f"{twice[0][0]}, and are not used")  # fmt: skip

    def _keys(self, paths: list[Path]) -> list[tuple[Path, str]]:
        """Return files and the frames they belong to, in the same order.

        A frame is the last number in a name that tells apart all files of a folder whose names differ in numbers only,
        without leading zeros; or the name itself where there is none.
        """
        alike: dict[tuple[Path, str], list[Path]] = defaultdict(list)
        for path in paths:
            alike[path.parent, NUMBER.sub("#", path.name)].append(path)
        keys: dict[Path, str] = {}
        for group in alike.values():
            stems = [_stem(path) for path in group]
            numbers = [[number.lstrip("0") or "0" for number in NUMBER.findall(stem)] for stem in stems]
            columns = list(zip(*(row[::-1] for row in numbers), strict=False)) or [tuple(stems)]
            distinct = [column for column in columns if len(set(column)) == len(column)]
            if not distinct:
                row = next(i for i, value in enumerate(columns[0]) if value in columns[0][:i])
                first, second = group[columns[0].index(columns[0][row])], group[row]
                self.unclear.append(f"{first} and {second.name} seem to be of one frame, {columns[0][row]}")
            keys |= dict(zip(group, [*distinct, columns[0]][0], strict=True))
        return [(path, keys[path]) for path in paths]


def words_of(text: str) -> list[str]:
    """Return words and numbers of a name in lower case: "depthMap_007" -> depthmap, 007."""
    return [word for word in re.split(r"[^a-zA-Z0-9]+|(?<=[a-zA-Z])(?=\d)", text.lower()) if word]


def _role(path: Path, root: Path) -> str | None:
    """Return the role of a file by the words of its name, else of the folders above it."""
    for part in (path.stem, *reversed(path.relative_to(root).parent.parts)):
        words = set(words_of(part)) | {part.lower()}
        for role in ("other", "depth", "pose", "color"):
            if words & ROLES[role]:
                return role
    return None


def _stem(path: Path) -> str:
    """Return a file's name without the words that give its role."""
    return ".".join(w for w in path.stem.split(".") if w.lower() not in set().union(*ROLES.values()))


def _is_deep(path: Path) -> bool:
    with open_picture(path) as picture:
        return picture.mode.startswith(("I", "F"))


def collect_files(folder: Path) -> FrameFiles:
    """Collect the picture and pose files of a folder and two levels of sub-folders."""
    files = FrameFiles()
    found: dict[str, list[Path]] = {"color": [], "depth": [], "pose": []}
    unknown: list[Path] = []
    for path in sorted(p for pattern in ("*", "*/*", "*/*/*") for p in folder.glob(pattern)):
        suffix = path.suffix.lower()
        if suffix not in PICTURES | DEPTHS | {".txt"} or path.name.startswith(".") or not path.is_file():
            continue
        role = _role(path, folder)
        if role == "depth" and suffix in DEPTHS:
            found["depth"].append(path)
        elif role == "pose" and suffix in {".txt", ".npy"} and path.name not in TRAJECTORIES:
            found["pose"].append(path)
        elif role == "color" and suffix in PICTURES:
            found["color"].append(path)
        elif role is None and suffix in PICTURES:
            unknown.append(path)
    if not (found["color"] and found["depth"]):  # no telling names: 16-bit pictures are depth, the others colour
        for path in unknown:
            try:
                role = "depth" if path.suffix.lower() in DEPTHS and _is_deep(path) else "color"
            except UserError:
                files.notes.append(f"left out: {path}: cannot be read as a picture")
                continue
            found[role].append(path)
    for role, paths in found.items():
        files.add(role, paths)
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


def _is_shallow(path: Path) -> bool:
    """Return True where a depth map has 8 bits only, as pictures of depth for the eye have."""
    if path.suffix in {".npy", ".exr"}:
        return False
    try:
        with open_picture(path) as picture:
            return picture.mode in ("L", "P", "RGB", "RGBA")
    except UserError:
        return False


def _raw_type(paths: list[Path]) -> np.dtype:
    """Return the type of the first depth map that can be read."""
    for path in paths:
        if path.suffix == ".npy":
            with contextlib.suppress(UserError):
                return array_type(path)
    return np.dtype(np.float32)


def _size(paths: list[Path], read: Callable[[Path], np.ndarray]) -> tuple[int, int]:
    """Return the height and width of most of a few files; raises the first one's `UserError` if none can be read."""
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
