"""Point clouds from files: PLY, PCD, LAS / LAZ, OBJ, STL, OFF, XYZ; units and irregularities are corrected."""

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from xmask3d.errors import UserError
from xmask3d.geometry.ply import read_elements
from xmask3d.guarded import reading
from xmask3d.scan.cloud_las import read_las
from xmask3d.scan.cloud_pcd import read_pcd
from xmask3d.scan.cloud_raw import Raw, single_color, to_bytes
from xmask3d.scan.cloud_text import TEXT_SUFFIXES, read_text
from xmask3d.scan.glb import check_glb

SUFFIXES = (".ply", ".pcd", ".las", ".laz", ".obj", ".stl", ".off", ".glb", *TEXT_SUFFIXES)
SPACING = 0.02  # metres between points sampled on the faces of a mesh
MAX_SAMPLED = 5_000_000


@dataclass
class Cloud:
    """Points of a file.

    Attributes:
        points: n x 3 float32, finite, in metres about `origin`.
        colors: n x 3 uint8, or None where the file has none.
        origin: 3 float64, added to the points to get the file's position in metres (0 but for map coordinates).
        units_per_metre: what the file's numbers were divided by.
        notes: what was found and done, one sentence each.
    """

    points: np.ndarray
    colors: np.ndarray | None
    origin: np.ndarray = field(default_factory=lambda: np.zeros(3))
    units_per_metre: float = 1.0
    notes: list[str] = field(default_factory=list)


def map_origin(centre: np.ndarray) -> np.ndarray:
    """Return 3 float64 whole metres as origin: 0, but near a centre so far away that float32 loses millimetres.

    Args:
        centre: 3 metres.
    """
    return np.floor(centre) if np.abs(centre).max() > 1000 else np.zeros(3)


def read_cloud(path: Path, units_per_metre: float | None = None, origin: np.ndarray | None = None) -> Cloud:
    """Read a cloud or mesh, drop points that are NaN or infinite, and bring it to metres.

    Args:
        units_per_metre: what one metre is written as; guessed from the extent when None.
        origin: 3 float64 metres to count positions from; found by `map_origin` when None.

    Raises:
        UserError: unknown format, damaged file, or no point left.
    """
    if not path.is_file():
        raise UserError(f"{path}: no such file")
    suffix = path.suffix.lower()
    readers = {".ply": _read_ply, ".pcd": read_pcd, ".las": read_las, ".laz": read_las}
    readers |= dict.fromkeys(TEXT_SUFFIXES, read_text)
    readers |= {".obj": _read_obj} | dict.fromkeys((".stl", ".off", ".glb"), _read_mesh)
    if suffix not in readers:
        raise UserError(f"{path}: not a point cloud that is understood ({', '.join(SUFFIXES)})")
    with reading(path, f"a {suffix[1:].upper()} file"):
        points, colors, notes, units, painted = readers[suffix](path, units_per_metre)
    points = np.asarray(points, np.float64).reshape(-1, 3)
    finite = np.isfinite(points).all(1)
    if not finite.all():
        notes.append(f"{(~finite).sum()} of {len(points)} points are NaN or infinite and are left out")
        points, colors = points[finite], None if colors is None else colors[finite]
    if not len(points):
        raise UserError(f"{path}: has no points")
    one = None if colors is None else single_color(colors)
    if one is not None and (not painted or len(set(one)) == 1):
        notes.append(f"every point has the same colour {one}, which is taken for none")
        colors = None
    if colors is None:
        notes.append("no colours; the networks get mid-grey and will see shapes only")
    return _to_metres(points, colors, units, origin, notes)


def _to_metres(
    points: np.ndarray, colors: np.ndarray | None, units: float | None, origin: np.ndarray | None, notes: list[str]
) -> Cloud:
    if units is None:
        units = _guess_units(points, notes)
    points = points / units
    if origin is None:
        origin = map_origin(np.median(points[:: max(1, len(points) // 100_000)], axis=0))
        if origin.any():
            notes.append(
                f"coordinates are far from zero (a map's?); worked on about ({origin[0]:.0f}, {origin[1]:.0f})"
            )
    return Cloud((points - origin).astype(np.float32), colors, origin, units, notes)


def _guess_units(points: np.ndarray, notes: list[str]) -> float:
    """Guess millimetres or centimetres where the extent is no room's or building's in metres."""
    low, high = np.percentile(points[:: max(1, len(points) // 100_000)], (1, 99), axis=0)
    longest, shortest = float((high - low).max()), float((high - low).min())
    if longest > 1500:
        notes.append(f"{longest:.0f} units across: taken as millimetres (--unit m to refuse)")
        return 1000.0
    if longest > 150 and shortest > 40:
        notes.append(f"{longest:.0f} units across: taken as centimetres (--unit m to refuse)")
        return 100.0
    if not longest:
        notes.append("warning: all points lie in one place")
    elif longest < 0.3:
        notes.append(f"only {longest:.3g} m across; if that is wrong, give the unit with --unit")
    return 1.0


def _read_ply(path: Path, units: float | None) -> Raw:
    try:
        elements = read_elements(path)
        vertex = elements["vertex"]
        names = vertex.dtype.names or ()
        points = np.stack([vertex[axis] for axis in "xyz"], 1)
    except (OSError, KeyError, ValueError) as error:
        raise UserError(f"{path}: damaged, or not a PLY with x, y, z ({str(error)[:100]})") from error
    colors = None
    for channels in (("red", "green", "blue"), ("r", "g", "b"), ("diffuse_red", "diffuse_green", "diffuse_blue")):
        if all(channel in names for channel in channels):
            colors = to_bytes(np.stack([vertex[channel] for channel in channels], 1))
            break
    if "f_dc_0" in names:
        colors = to_bytes(np.clip(0.5 + 0.2820948 * np.stack([vertex[f"f_dc_{i}"] for i in range(3)], 1), 0, 1))
    if len(elements.get("face", ())) and _is_sparse(points, units):
        return _read_mesh(path, units)
    return Raw(points, colors, [], units)


def _is_sparse(points: np.ndarray, units: float | None) -> bool:
    """Return True where a mesh has too few vertices to represent its surface."""
    points = points[np.isfinite(points).all(1)]
    if not 0 < len(points) <= 200_000:
        return False
    extent = np.ptp(points, axis=0) / (units or _guess_units(points, []))
    area = extent[0] * extent[1] + extent[1] * extent[2] + extent[0] * extent[2]
    return len(points) < 0.1 * area / SPACING**2 and float(extent.max()) < 100


def _read_mesh(path: Path, units: float | None) -> Raw:
    import trimesh

    if path.suffix.lower() == ".glb":
        check_glb(path)
    try:
        mesh: Any = trimesh.load(str(path), force="mesh", process=False)
    except Exception as error:
        # trimesh's loaders raise nearly anything on damaged files.
        raise UserError(f"{path}: cannot be read as a mesh ({str(error)[:100]})") from error
    if not len(getattr(mesh, "vertices", ())):
        raise UserError(f"{path}: has no points")
    visual = mesh.visual.to_color() if hasattr(mesh.visual, "to_color") else mesh.visual
    colored = getattr(visual, "kind", None) in ("vertex", "face") or mesh.visual.kind == "texture"
    vertex_colors = np.asarray(visual.vertex_colors)[:, :3] if colored else None
    vertices = np.asarray(mesh.vertices)
    notes: list[str] = []
    if not len(mesh.faces) or not np.isfinite(mesh.area) or not _is_sparse(vertices, units):
        return Raw(vertices, vertex_colors, notes, units)
    units = units or _guess_units(vertices[np.isfinite(vertices).all(1)], notes)
    count = int(min(MAX_SAMPLED, max(1000, mesh.area / units**2 / SPACING**2)))
    textured = mesh.visual.kind == "texture" and getattr(mesh.visual.material, "image", None) is not None
    sampled = trimesh.sample.sample_surface(mesh, count, sample_color=textured, seed=0)
    points, faces = sampled[0], sampled[1]
    colors = np.asarray(sampled[2])[:, :3] if textured and len(sampled) > 2 else None
    if colors is None and vertex_colors is not None:
        colors = vertex_colors[mesh.faces[faces, 0]]
    return Raw(points, colors, [*notes, f"a mesh of few vertices; {count} points sampled on its faces"], units)


def _read_obj(path: Path, units: float | None) -> Raw:
    """Read a mesh, or vertices alone (`v x y z`, perhaps with `r g b` in [0, 1]), which mesh readers ignore."""
    try:
        with path.open("rb") as file:
            vertices = []
            for line in file:
                if line.startswith((b"f ", b"f\t")):
                    return _read_mesh(path, units)
                if line.startswith((b"v ", b"v\t")):
                    vertices.append(line.split()[1:])
        widths = {len(vertex) for vertex in vertices}
        if widths and widths <= {3, 4, 6, 7}:
            table = np.array([vertex[:3] + (vertex[-3:] if len(vertex) > 4 else []) for vertex in vertices], np.float64)
            return Raw(table[:, :3], to_bytes(table[:, 3:6]) if table.shape[1] == 6 else None, [], units)
    except (OSError, ValueError) as error:
        raise UserError(f"{path}: cannot be read as OBJ ({str(error)[:100]})") from error
    return _read_mesh(path, units)
