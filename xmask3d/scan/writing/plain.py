"""Files without labels, to which the writers add them: meshes by trimesh, and clouds in each format's own form."""

import re
from copy import copy
from pathlib import Path
from typing import Any

import numpy as np

from xmask3d.geometry.ply import write_elements
from xmask3d.scan.mesh_files import load

MESHES = (".ply", ".obj", ".glb")
"""Formats in which meshes can be written."""
READ = (*MESHES, ".gltf", ".stl", ".off")


def load_mesh(path: Path) -> Any:
    """Read a mesh with its texture, joining several parts. Raises `ValueError` if there are no faces."""
    import trimesh

    if path.suffix.lower() not in READ:
        raise ValueError("no mesh")
    loaded, _ = load(path)
    mesh = loaded.to_mesh() if isinstance(loaded, trimesh.Scene) else loaded
    if not isinstance(mesh, trimesh.Trimesh) or not len(mesh.faces):
        raise ValueError("no mesh")
    return mesh


def export_mesh(mesh: Any, folder: Path, suffix: str, name: str) -> Path:
    """Write a mesh into a folder; a PLY gets the colours of the texture at its vertices.

    Args:
        name: name of the material and the texture of an OBJ, which must be unique once they are copied.
    """
    path, name = folder / f"mesh{suffix}", re.sub(r"\W+", "_", name)
    more: dict[str, str] = {}
    if mesh.visual.kind == "texture" and suffix != ".glb":
        mesh = mesh.copy()
        if suffix == ".ply":
            mesh.visual = mesh.visual.to_color()
        else:
            material = mesh.visual.material
            mesh.visual.material = material.to_simple() if hasattr(material, "to_simple") else copy(material)
            mesh.visual.material.name = name
            more["mtl_name"] = f"{name}.mtl"
    mesh.export(str(path), **more)
    return path


def convert(source: Path, folder: Path, suffix: str, name: str) -> tuple[Path, str | None]:
    """Convert a mesh to another format in a folder; return the file and a sentence about what is lost.

    Args:
        name: see `export_mesh`.

    Raises:
        ValueError: the file has no mesh, or the format cannot hold one.
    """
    if suffix not in MESHES:
        raise ValueError(f"{suffix[1:].upper()} holds no faces")
    mesh = load_mesh(source)
    textured = suffix == ".ply" and mesh.visual.kind == "texture"
    return export_mesh(mesh, folder, suffix, name), "the texture became colours of the vertices" if textured else None


def cloud_file(folder: Path, suffix: str, points: np.ndarray, colors: np.ndarray | None) -> Path:
    """Write points alone, with their colours if they have any.

    Args:
        points: n x 3 metres.
        colors: n x 3 uint8, or None.
    """
    path = folder / f"cloud{suffix}"
    kind = "f8" if np.abs(points).max(initial=0) > 1000 else "f4"  # map coordinates need more digits
    if suffix == ".ply":
        fields = [(axis, kind) for axis in "xyz"]
        fields += [] if colors is None else [(name, "u1") for name in ("red", "green", "blue")]
        vertex = np.empty(len(points), fields)
        for i, axis in enumerate("xyz"):
            vertex[axis] = points[:, i]
        for i, name in enumerate(() if colors is None else ("red", "green", "blue")):
            vertex[name] = colors[:, i]  # type: ignore[index]
        write_elements(path, {"vertex": vertex})
    elif suffix == ".pcd":
        _write_pcd(path, points.astype(kind), colors)
    elif suffix == ".obj":
        table = points if colors is None else np.concatenate([points, colors / 255], 1)
        np.savetxt(path, table, fmt="v" + " %.6f" * table.shape[1])
    else:
        import trimesh

        trimesh.Scene(trimesh.PointCloud(points, colors)).export(str(path))
    return path


def _write_pcd(path: Path, points: np.ndarray, colors: np.ndarray | None) -> None:
    size, count = points.itemsize, len(points)
    fields = [(axis, f"<f{size}", str(size), "F") for axis in "xyz"]
    fields += [] if colors is None else [("rgb", "<u4", "4", "F")]
    table = np.empty(count, [(name, kind) for name, kind, _, _ in fields])
    for i, axis in enumerate("xyz"):
        table[axis] = points[:, i]
    if colors is not None:
        red, green, blue = colors.astype(np.uint32).T
        table["rgb"] = (red << 16) | (green << 8) | blue
    lines = ["# .PCD v0.7", "VERSION 0.7", "FIELDS " + " ".join(f[0] for f in fields),
             "SIZE " + " ".join(f[2] for f in fields), "TYPE " + " ".join(f[3] for f in fields),
             "COUNT " + " ".join("1" for _ in fields), f"WIDTH {count}", "HEIGHT 1", "VIEWPOINT 0 0 0 1 0 0 0",
             f"POINTS {count}", "DATA binary", ""]  # fmt: skip
    path.write_bytes("\n".join(lines).encode() + table.tobytes())
