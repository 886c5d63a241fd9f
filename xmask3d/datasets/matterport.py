"""Matterport3D: annotated regions of houses as scenes, with the undistorted frames of the panoramas in them."""

from pathlib import Path

import numpy as np

from xmask3d.data.prepare.labels import read_ply, read_raw_ids, read_table, vertices_of
from xmask3d.data.prepare.many import read_list
from xmask3d.datasets.raw_scene import RawScene, label_vertices
from xmask3d.errors import UserError
from xmask3d.guarded import read_text, reading
from xmask3d.scan.posed_frames import PosedFrame

LISTS = "tasks/benchmark/scenes_{}.txt"
TABLE = "metadata/category_mapping.tsv"
UNITS = 4000.0  # 0.25 mm
HEIGHT = 1024  # pixels of every undistorted picture
UUID = 32  # digits of a panorama's name


def find_scenes(raw: Path, lists: dict[str, list[str]]) -> dict[str, str]:
    """Return the split of each region of the houses of `lists`, or of those of the benchmark's lists that are there."""
    own = {split: raw / LISTS.format(split) for split in ("train", "val", "test")}
    houses = lists or {split: read_list(path) for split, path in own.items() if path.is_file()}
    scenes: dict[str, str] = {}
    for split, names in houses.items():
        for house in names:
            folder = _house(raw, house)
            if folder is None and lists:
                raise UserError(f"{raw}: no folder of the house {house} (looked for v1/scans/, scans/ and {house})")
            found = sorted((folder / "region_segmentations").glob("region*.ply")) if folder else []
            scenes |= {f"{house}_{path.stem}": split for path in found}
    return scenes


def _house(raw: Path, house: str) -> Path | None:
    places = [base / part for base in (raw / "v1" / "scans" / house, raw / "scans" / house, raw / house)
              for part in (house, "")]  # fmt: skip
    return next((place for place in places if (place / "region_segmentations").is_dir()), None)


def read_scene(raw: Path, name: str, frames: Path) -> RawScene:
    """Read one region. Raises `UserError` naming a missing or damaged file."""
    house, _, region = name.rpartition("_")
    folder, pictures = _house(raw, house), _house(frames, house)
    if folder is None or pictures is None:
        raise UserError(f"{raw}: no folder of the house {house}")
    mesh = folder / "region_segmentations" / f"{region}.ply"
    elements = read_ply(mesh)
    points, colors = vertices_of(elements, mesh)
    faces = elements.get("face", np.zeros(0, []))
    rows = read_table(raw / TABLE, "\t", ("raw_category", "nyu40id"), number="nyu40id")
    names = {row["raw_category"]: int(row["nyu40id"] or 0) for row in rows}
    ids, _ = read_raw_ids(mesh.with_suffix(".semseg.json"), mesh.with_suffix(".fsegs.json"), names, len(faces))
    labels = label_vertices(mesh, faces, ids, len(points))
    panoramas = _panoramas(folder / "house_segmentations" / f"{house}.house", region.removeprefix("region"))
    posed = _frames(pictures, pictures / "undistorted_camera_parameters" / f"{house}.conf", panoramas)
    return RawScene(points, colors, labels, posed, "camera-to-world, y up", UNITS)


def _panoramas(path: Path, region: str) -> set[str]:
    """Read the names of the panoramas that were taken in a region; portals begin with P too, and have numbers."""
    rows = [line.split() for line in read_text(path, "a list of regions and panoramas").splitlines()]
    return {row[1] for row in rows if len(row) > 3 and row[0] == "P" and len(row[1]) == UUID and row[3] == region}


def _frames(folder: Path, path: Path, panoramas: set[str]) -> list[PosedFrame]:
    """Read frames: the file counts rows of pictures from below, as the cameras' own intrinsics show."""
    frames, matrix = [], None
    for number, line in enumerate(read_text(path, "camera parameters").splitlines(), 1):
        with reading(f"{path}, line {number}", "camera parameters of Matterport3D"):
            match line.split():
                case ["intrinsics_matrix", *values]:
                    matrix = np.array(values, float).reshape(3, 3)
                    matrix[1, 2] = HEIGHT - 1 - matrix[1, 2]
                case ["scan", depth, color, *values] if color.split("_")[0] in panoramas:
                    if matrix is None:
                        raise ValueError("a scan before any intrinsics_matrix")
                    picture = folder / "undistorted_color_images" / Path(color).name
                    measured = folder / "undistorted_depth_images" / Path(depth).name
                    pose = np.array(values, float).reshape(4, 4)
                    frames.append(PosedFrame(picture, measured, pose, matrix))
    return frames
