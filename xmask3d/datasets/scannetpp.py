"""ScanNet++: annotated meshes and iPhone frames, which the data set's toolkit unpacks into rgb/ and depth/."""

from pathlib import Path

import numpy as np

from xmask3d.data.prepare.labels import read_ply, read_raw_ids, read_table, vertices_of
from xmask3d.data.prepare.many import read_list
from xmask3d.datasets.raw_scene import RawScene
from xmask3d.errors import UserError
from xmask3d.guarded import read_json, reading
from xmask3d.scan.posed_frames import PosedFrame
from xmask3d.splits import load_benchmark

LISTS = {"train": "splits/nvs_sem_train.txt", "val": "splits/nvs_sem_val.txt"}
MAPPING = "metadata/semantic_benchmark/map_benchmark.csv"


def find_scenes(raw: Path, lists: dict[str, list[str]]) -> dict[str, str]:
    """Return the split of each scene: of `lists`, or of those of the release's own lists that are there."""
    if lists:
        return {name: split for split, names in lists.items() for name in names}
    own = {split: read_list(raw / file) for split, file in LISTS.items() if (raw / file).is_file()}
    return {name: split for split, names in own.items() for name in names if (raw / "data" / name).is_dir()}


def read_scene(raw: Path, name: str, frames: Path) -> RawScene:
    """Read one scene. Raises `UserError` naming a missing or damaged file."""
    scans = raw / "data" / name / "scans"
    mesh = scans / "mesh_aligned_0.05.ply"
    points, colors = vertices_of(read_ply(mesh), mesh)
    benchmark = load_benchmark("scannetpp/all")
    ids = dict(zip(benchmark.class_names, benchmark.file_ids_3d, strict=True))
    rows = read_table(raw / MAPPING, ",", ("class", "semantic_map_to"))
    mapped = {row["class"]: row["semantic_map_to"] or row["class"] for row in rows}
    names = ids | {label: ids[mapped[label]] for label in mapped if mapped[label] in ids}
    labels, _ = read_raw_ids(scans / "segments_anno.json", scans / "segments.json", names, len(points))
    return RawScene(points, colors, labels, _frames(frames / "data" / name / "iphone"))


def _frames(folder: Path) -> list[PosedFrame]:
    path = folder / "pose_intrinsic_imu.json"
    content = read_json(path)
    if not isinstance(content, dict):
        raise UserError(f"{path}: damaged; expected poses and intrinsics by the name of their frame")
    frames = []
    with reading(path, "poses and intrinsics of an iPhone's frames"):
        for key in sorted(content):
            pose = np.array(content[key]["aligned_pose"], float).reshape(4, 4)
            matrix = np.array(content[key]["intrinsic"], float).reshape(3, 3)
            stem = Path(key).name
            frames.append(PosedFrame(folder / "rgb" / f"{stem}.jpg", folder / "depth" / f"{stem}.png", pose, matrix))
    return frames
