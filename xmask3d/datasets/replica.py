"""Replica: semantic meshes of AI Habitat's export, and frames as rendered for NICE-SLAM."""

from pathlib import Path

import numpy as np

from xmask3d.data.prepare.labels import read_ply, vertices_of
from xmask3d.datasets.raw_scene import RawScene, label_vertices
from xmask3d.errors import UserError
from xmask3d.guarded import read_json, reading
from xmask3d.scan.posed_frames import PosedFrame
from xmask3d.scan.trajectories import read_trajectory

MESH, OBJECTS = "habitat/mesh_semantic.ply", "habitat/info_semantic.json"


def find_scenes(raw: Path, lists: dict[str, list[str]]) -> dict[str, str]:
    """Return the split of each scene: of `lists`, or val for all that are there, since the release names no split."""
    found = {"val": sorted(path.parent.parent.name for path in raw.glob(f"*/{MESH}"))}
    return {name: split for split, names in (lists or found).items() for name in names}


def read_scene(raw: Path, name: str, frames: Path) -> RawScene:
    """Read one scene. Raises `UserError` naming a missing or damaged file."""
    mesh, path = raw / name / MESH, raw / name / OBJECTS
    elements = read_ply(mesh)
    points, colors = vertices_of(elements, mesh)
    content = read_json(path)
    with reading(path, "objects and their classes"):
        classes = {int(entry["id"]): max(int(entry["class_id"]), 0) for entry in content["objects"]}
    faces = elements.get("face", np.zeros(0, []))
    if "object_id" not in (faces.dtype.names or ()):
        raise UserError(f"{mesh}: its faces have no object_id; this is not habitat's semantic mesh")
    objects, place = np.unique(np.asarray(faces["object_id"]), return_inverse=True)
    ids = np.array([classes.get(int(each), 0) for each in objects], np.int64)[place.reshape(-1)]
    posed, units = _frames(frames, name.replace("_", ""))
    return RawScene(points, colors, label_vertices(mesh, faces, ids, len(points)), posed, units=units)


def _frames(folder: Path, name: str) -> tuple[list[PosedFrame], float]:
    path = folder / "cam_params.json"
    content = read_json(path)
    with reading(path, "the camera of rendered frames"):
        camera = {key: float(content["camera"][key]) for key in ("w", "h", "fx", "fy", "cx", "cy", "scale")}
        if not 0 < camera["scale"] < np.inf:
            raise ValueError(f"a scale of {camera['scale']}")
    matrix = np.array([[camera["fx"], 0, camera["cx"]], [0, camera["fy"], camera["cy"]], [0, 0, 1]])
    size = int(camera["h"]), int(camera["w"])
    colors = sorted((folder / name / "results").glob("frame*.jpg"))
    poses = read_trajectory(folder / name / "traj.txt").poses
    if len(poses) != len(colors):
        raise UserError(f"{folder / name / 'traj.txt'}: {len(poses)} poses for {len(colors)} pictures in results/")
    depths = [path.with_name(path.stem.replace("frame", "depth") + ".png") for path in colors]
    posed = [PosedFrame(*each, matrix, size) for each in zip(colors, depths, poses, strict=True)]
    return posed, camera["scale"]
