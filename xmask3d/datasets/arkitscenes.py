"""ARKitScenes: meshes whose points take the class of the annotated box that they are in, and frames of the iPad."""

from pathlib import Path

import numpy as np

from xmask3d.data.prepare.labels import read_ply, vertices_of
from xmask3d.datasets.raw_scene import RawScene
from xmask3d.errors import UserError
from xmask3d.guarded import read_json, reading
from xmask3d.scan.formats import read_numbers
from xmask3d.scan.posed_frames import PosedFrame
from xmask3d.scan.trajectories import read_trajectory
from xmask3d.splits import load_benchmark

FOLDERS = {"train": "Training", "val": "Validation"}
MAX_GAP = 0.02  # seconds between a picture and its pose; both come ten times a second, or oftener
ROUNDING = (0, -0.001, 0.001)  # seconds by which the names of pictures and of their intrinsics may differ


def find_scenes(raw: Path, lists: dict[str, list[str]]) -> dict[str, str]:
    """Return the split of each video: of `lists`, or by the release's folders Training and Validation."""
    found = {split: sorted(path.name for path in (raw / folder).glob("*") if path.is_dir())
             for split, folder in FOLDERS.items()}  # fmt: skip
    return {name: split for split, names in (lists or found).items() for name in names}


def read_scene(raw: Path, name: str, frames: Path) -> RawScene:
    """Read one video. Raises `UserError` naming a missing or damaged file."""
    folder = next((raw / part / name for part in FOLDERS.values() if (raw / part / name).is_dir()), raw / name)
    mesh = folder / f"{name}_3dod_mesh.ply"
    points, colors = vertices_of(read_ply(mesh), mesh)
    labels = label_by_boxes(points, folder / f"{name}_3dod_annotation.json")
    pictures = frames / folder.relative_to(raw)
    inner = pictures / f"{name}_frames"
    return RawScene(points, colors, labels, _frames(inner if inner.is_dir() else pictures), "world-to-camera")


def label_by_boxes(points: np.ndarray, path: Path) -> np.ndarray:
    """Return for each point the label id of the smallest annotated box that it is in, 0 outside of all."""
    benchmark = load_benchmark("arkitscenes/all")
    ids = dict(zip((name.replace(" ", "_") for name in benchmark.class_names), benchmark.file_ids_3d, strict=True))
    content = read_json(path)
    boxes = []
    with reading(path, "oriented boxes of objects"):
        for entry in content["data"]:
            box = entry["segments"]["obbAligned"]
            lengths, center = (np.array(box[key], float).reshape(3) for key in ("axesLengths", "centroid"))
            axes = np.array(box["normalizedAxes"], float).reshape(3, 3)  # one a row
            boxes.append((float(np.prod(lengths)), ids.get(entry["label"], 0), lengths / 2, center, axes))
    labels = np.zeros(len(points), np.int64)
    for _, label, half, center, axes in sorted(boxes, key=lambda box: -box[0]):
        inside = (np.abs((points - center) @ axes.T) <= half).all(1)
        if label:
            labels[inside] = label
    return labels


def _frames(folder: Path) -> list[PosedFrame]:
    trajectory = folder / "lowres_wide.traj"
    poses = read_trajectory(trajectory)
    if not poses.keys:
        raise UserError(f"{trajectory}: poses without times")
    frames = []
    for color in sorted((folder / "lowres_wide").glob("*.png")):
        with reading(color, "a picture whose name ends in its time"):
            video, _, moment = color.stem.rpartition("_")
            time = float(moment)
        gaps = np.abs(poses.keys[0] - time)
        names = (f"{video}_{time + shift:.3f}.pincam" for shift in ROUNDING)
        camera = next((path for file in names if (path := folder / "lowres_wide_intrinsics" / file).is_file()), None)
        if camera is None or gaps.min() > MAX_GAP:
            continue
        numbers = read_numbers(camera)
        if len(numbers) != 6:
            raise UserError(f"{camera}: {len(numbers)} numbers; expected width, height, two focal lengths and a centre")
        matrix = np.array([[numbers[2], 0, numbers[4]], [0, numbers[3], numbers[5]], [0, 0, 1]])
        frames.append(PosedFrame(color, folder / "lowres_depth" / color.name, poses.poses[gaps.argmin()], matrix))
    return frames
