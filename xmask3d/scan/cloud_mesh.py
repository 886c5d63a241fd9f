"""Points of surfaces: meshes with few vertices are sampled, with colours of vertices, textures or materials."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from xmask3d.errors import UserError
from xmask3d.scan.cloud_raw import Raw, to_bytes
from xmask3d.scan.mesh_files import Assets, load, without_comments
from xmask3d.scan.units import guess_units

SPACING = 0.02  # metres between points sampled on the faces of a mesh
MAX_SAMPLED = 5_000_000
FOLDS = 10  # largest area sampled, in surfaces of the box around the mesh: faces may overlap without end
GREY = 128  # colour of parts without colour, in a mesh whose other parts have one


@dataclass
class Surface:
    """Part of a mesh with a single material.

    Attributes:
        vertices: n x 3.
        faces: m x 3 indices of vertices.
        colors: n x 3 uint8 of the vertices, or m x 3 of the faces (see `by_face`), or None.
        by_face: true if the colours are those of the faces.
        uv: n x 2 texture coordinates, or None.
        texture: a picture, or None.
        plain: 3 uint8, colour of the material, or None.
    """

    vertices: np.ndarray
    faces: np.ndarray
    colors: np.ndarray | None = None
    by_face: bool = False
    uv: np.ndarray | None = None
    texture: Any = None
    plain: np.ndarray | None = None

    def color_at(self, faces: np.ndarray, weights: np.ndarray) -> np.ndarray | None:
        """Return colours of points on the faces, k x 3 uint8, or None.

        Args:
            faces: k faces.
            weights: k x 3 shares of their corners (barycentric coordinates).
        """
        corners = self.faces[faces]
        if self.texture is not None and self.uv is not None:
            return _look_up(self.texture, np.einsum("kc,kcd->kd", weights, self.uv[corners]))
        if self.colors is not None and self.by_face:
            return self.colors[faces]
        if self.colors is not None:
            mixed = np.einsum("kc,kcd->kd", weights, self.colors[corners].astype(np.float64))
            return np.clip(np.rint(mixed), 0, 255).astype(np.uint8)
        return None if self.plain is None else np.tile(self.plain, (len(faces), 1))

    def vertex_colors(self) -> np.ndarray | None:
        """Return colours of the vertices, n x 3 uint8, or None."""
        if self.texture is not None and self.uv is not None:
            return _look_up(self.texture, self.uv)
        if self.colors is not None and self.by_face:
            result = np.full((len(self.vertices), 3), GREY, np.uint8)
            result[self.faces] = self.colors[:, None]
            return result
        if self.colors is None and self.plain is not None:
            return np.tile(self.plain, (len(self.vertices), 1))
        return self.colors


def _look_up(texture: Any, uv: np.ndarray) -> np.ndarray:
    from trimesh.visual.color import uv_to_interpolated_color

    return uv_to_interpolated_color(np.nan_to_num(uv, posinf=0, neginf=0), texture)[:, :3]


def read_mesh(path: Path, units: float | None, vertex_colors: np.ndarray | None = None) -> Raw:
    """Read a mesh by trimesh; if there are points too, the meshes depict cameras, and the points are the scan.

    Args:
        path: PLY, STL, OFF, glTF.
        units: units per metre, if known.
        vertex_colors: n x 3 uint8 colours of the vertices, if already read.
    """
    import trimesh

    suffix = path.suffix.lower()
    try:
        loaded, assets = load(path)
        parts: list[Any] = loaded.dump() if isinstance(loaded, trimesh.Scene) else [loaded]
        clouds = [part for part in parts if isinstance(part, trimesh.PointCloud) and len(part.vertices)]
        meshes = [part for part in parts if isinstance(part, trimesh.Trimesh) and len(part.faces)]
        if suffix == ".off":
            vertex_colors = _off_colors(without_comments(path.read_bytes()), sum(len(part.vertices) for part in parts))
        if clouds and sum(len(part.vertices) for part in clouds) >= sum(len(part.vertices) for part in meshes):
            return _points_of(clouds, len(meshes), units)
        surfaces = [_surface(mesh, vertex_colors) for mesh in meshes]
    except UserError:
        raise
    except Exception as error:
        # trimesh's loaders raise all kinds of errors on damaged files.
        raise UserError(f"{path}: cannot be read as a mesh ({' '.join(str(error).split())[:100]})") from error
    if not surfaces:
        points = np.concatenate([np.zeros((0, 3)), *(part.vertices for part in parts if hasattr(part, "vertices"))])
        return Raw(points, vertex_colors, [], units)
    if suffix == ".ply" and assets.missing:
        for surface in surfaces:
            surface.texture = None  # trimesh invents one
    return sample(surfaces, units, missing_notes(assets, surfaces))


def missing_notes(assets: Assets, surfaces: list[Surface]) -> list[str]:
    """Return sentences on missing parts of a mesh's colours: files, or texture coordinates."""
    notes = [f"warning: {name.strip()}, which the file names for its colours, is missing" for name in assets.missing]
    if any(surface.texture is not None and surface.uv is None for surface in surfaces):
        notes.append("warning: the texture cannot be used, since the file has no texture coordinates for it")
    return notes


def _points_of(clouds: list[Any], meshes: int, units: float | None) -> Raw:
    points = np.concatenate([np.asarray(cloud.vertices) for cloud in clouds])
    known = [len(getattr(cloud, "colors", ())) == len(cloud.vertices) for cloud in clouds]
    colors = np.concatenate([np.asarray(cloud.colors)[:, :3] for cloud in clouds]) if all(known) else None
    note = f"{meshes} meshes beside the points (drawn cameras?) are left out"
    return Raw(points, None if colors is None else to_bytes(colors), [note] if meshes else [], units)


def _surface(mesh: Any, vertex_colors: np.ndarray | None) -> Surface:
    surface = Surface(np.asarray(mesh.vertices), np.asarray(mesh.faces))
    visual = mesh.visual
    if visual.kind == "texture":
        surface.uv, surface.texture, surface.plain = appearance(visual.uv, visual.material, len(surface.vertices))
    if vertex_colors is not None and len(vertex_colors) == len(surface.vertices):
        surface.colors = vertex_colors
    elif visual.kind in ("vertex", "face"):
        surface.by_face = visual.kind == "face"
        surface.colors = np.asarray(visual.face_colors if surface.by_face else visual.vertex_colors)[:, :3]
    return surface


def appearance(uv: Any, material: Any, count: int) -> tuple[np.ndarray | None, Any, np.ndarray | None]:
    """Return texture coordinates, the texture, and the plain colour of a material; None for each that is missing."""
    texture = getattr(material, "image", None) or getattr(material, "baseColorTexture", None)
    plain = getattr(material, "baseColorFactor", None)
    if plain is None and "kd" in getattr(material, "kwargs", {}):
        plain = material.diffuse
    uv = np.asarray(uv) if np.shape(uv) == (count, 2) else None
    return uv, texture, None if plain is None else to_bytes(np.asarray(plain))[:3]


def _off_colors(data: bytes, count: int) -> np.ndarray | None:
    """Read the vertex colours of an OFF file without comments, n x 3 uint8 or None, because trimesh drops them."""
    words = [line.split() for line in data.splitlines()]
    kind = words[0][0].upper().partition(b"OFF")[0]
    rows = words[1 if len(words[0]) > 1 or not words[0][0].upper().endswith(b"OFF") else 2 :][:count]
    start = 6 if b"N" in kind else 3
    if len({len(row) for row in rows}) != 1 or len(rows[0]) < start + 3:
        return None
    values = np.array([row[start : start + 3] for row in rows], np.float64)
    return to_bytes(values) if values.min() >= 0 else None


def is_sparse(points: np.ndarray, units: float | None) -> bool:
    """Return True if a mesh has too few vertices to represent its surface.

    Args:
        points: n x 3.
        units: units per metre, if known.
    """
    points = points[np.isfinite(points).all(1)]
    if not 0 < len(points) <= 200_000:
        return False
    extent = np.ptp(points, axis=0) / (units or guess_units(points, []))
    return len(points) < 0.1 * _box_area(extent) / SPACING**2 and float(extent.max()) < 100


def _box_area(extent: np.ndarray) -> float:
    return float(extent[0] * extent[1] + extent[1] * extent[2] + extent[0] * extent[2])


def sample(surfaces: list[Surface], units: float | None, notes: list[str]) -> Raw:
    """Return the vertices, or points sampled on the faces if there are few vertices.

    Args:
        surfaces: one surface or more.
        units: units per metre, if known.
        notes: notes on the file so far.
    """
    import trimesh

    vertices = np.concatenate([surface.vertices for surface in surfaces]).astype(np.float64)
    if not is_sparse(vertices, units):
        return Raw(vertices, _joined([(s.vertex_colors(), len(s.vertices)) for s in surfaces]), notes, units, True)
    units = units or guess_units(vertices[np.isfinite(vertices).all(1)], notes)
    starts = np.cumsum([0, *(len(surface.vertices) for surface in surfaces)])
    faces = np.concatenate([s.faces + start for s, start in zip(surfaces, starts[:-1], strict=True)])
    mesh = trimesh.Trimesh(vertices, faces, process=False)
    if not np.isfinite(mesh.area):
        return Raw(vertices, _joined([(s.vertex_colors(), len(s.vertices)) for s in surfaces]), notes, units, True)
    extent = np.ptp(vertices[np.isfinite(vertices).all(1)], axis=0)
    area = min(mesh.area, 2 * FOLDS * _box_area(extent)) / units**2
    count = int(min(MAX_SAMPLED, max(1000, area / SPACING**2)))
    points, at = trimesh.sample.sample_surface(mesh, count, seed=0)[:2]
    weights = trimesh.triangles.points_to_barycentric(np.asarray(mesh.triangles)[at], points)
    weights = np.where(np.isfinite(weights), weights, 1 / 3)
    ends = np.cumsum([0, *(len(surface.faces) for surface in surfaces)])
    colors: list[tuple[np.ndarray | None, int]] = []
    order: list[np.ndarray] = []
    for surface, first, last in zip(surfaces, ends[:-1], ends[1:], strict=True):
        order.append(np.flatnonzero((at >= first) & (at < last)))
        colors.append((surface.color_at(at[order[-1]] - first, weights[order[-1]]), len(order[-1])))
    note = f"a mesh of few vertices; {count} points sampled on its faces"
    return Raw(np.asarray(points)[np.concatenate(order)], _joined(colors), [*notes, note], units, True)


def _joined(parts: list[tuple[np.ndarray | None, int]]) -> np.ndarray | None:
    """Join the colours of all parts, grey for parts without colours; None if no part has any."""
    if all(colors is None for colors, _ in parts):
        return None
    return np.concatenate([np.full((n, 3), GREY, np.uint8) if colors is None else colors for colors, n in parts])
