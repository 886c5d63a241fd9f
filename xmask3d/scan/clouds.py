"""Point clouds from files of many formats, with units and irregularities corrected."""

from dataclasses import dataclass, field, replace
from pathlib import Path

import numpy as np

from xmask3d.errors import UserError
from xmask3d.geometry.ply import read_elements
from xmask3d.guarded import reading
from xmask3d.scan.cloud_e57 import read_e57
from xmask3d.scan.cloud_las import read_las
from xmask3d.scan.cloud_mesh import is_sparse, read_mesh
from xmask3d.scan.cloud_obj import read_obj
from xmask3d.scan.cloud_pcd import read_pcd
from xmask3d.scan.cloud_raw import Raw, note_on_range, single_color, to_bytes, unpack_colors
from xmask3d.scan.cloud_splat import plain_name, read_splat, splats_of_ply
from xmask3d.scan.cloud_text import TEXT_SUFFIXES, read_text
from xmask3d.scan.foreign import foreign
from xmask3d.scan.size import scale_by_height
from xmask3d.scan.units import guess_units
from xmask3d.scan.viewpoint import camera_of
from xmask3d.seal import has_seal

MESHES = (".stl", ".off", ".glb", ".gltf")
SUFFIXES = (".ply", ".pcd", ".las", ".laz", ".e57", ".obj", *MESHES, ".splat", *TEXT_SUFFIXES)
REACH = 1e5
"""Largest distance of a scan's points from its middle, in metres; points beyond it are a device's errors."""
RECONSTRUCTED = ("fused.ply", "sparse_pc.ply", "points3D.ply", "meshed-poisson.ply", "meshed-delaunay.ply")
"""Names of the clouds and meshes that COLMAP and nerfstudio make from pictures."""


@dataclass
class Cloud:
    """Points of a file.

    Attributes:
        points: n x 3 float32, finite, in metres about `origin`.
        colors: n x 3 uint8, or None if the file has none.
        origin: 3 float64, to be added to the points for the file's positions in metres (0 except for map coordinates).
        units_per_metre: divisor of the file's numbers.
        notes: findings and corrections, one sentence each.
        file: the file, or None for points from elsewhere.
        camera: 3 x 3 axes (x right, y down, z forward) of the camera that took the complete cloud, if it can be
            determined.
    """

    points: np.ndarray
    colors: np.ndarray | None
    origin: np.ndarray = field(default_factory=lambda: np.zeros(3))
    units_per_metre: float = 1.0
    notes: list[str] = field(default_factory=list)
    file: Path | None = None
    camera: np.ndarray | None = None


def map_origin(centre: np.ndarray) -> np.ndarray:
    """Return the origin, 3 float64: 0, or integer metres if the centre is so far that float32 loses millimetres.

    Args:
        centre: 3 metres.
    """
    return np.floor(centre) if np.abs(centre).max() > 1000 else np.zeros(3)


def read_cloud(path: Path, units_per_metre: float | None = None, origin: np.ndarray | None = None) -> Cloud:
    """Read a cloud or mesh, drop points that are NaN or infinite, and convert it to metres.

    Args:
        units_per_metre: number of file units in one metre; None to guess it from the extent or, for reconstructions
            from pictures alone, from the height.
        origin: 3 float64 metres from which positions are measured; None to use `map_origin`.

    Raises:
        UserError: the format is unknown, the file is damaged, or no point is left.
    """
    if not path.is_file():
        raise UserError(f"{path}: no such file")
    suffix = path.suffix.lower()
    readers = {".ply": _read_ply, ".pcd": read_pcd, ".las": read_las, ".laz": read_las, ".e57": read_e57}
    readers |= dict.fromkeys(TEXT_SUFFIXES, read_text) | dict.fromkeys(MESHES, read_mesh)
    readers |= {".obj": read_obj, ".splat": read_splat}
    if suffix not in readers:
        unknown = f"not a point cloud that is understood ({', '.join(SUFFIXES)})"
        raise UserError(f"{path}: {foreign(path) or unknown}")
    with reading(path, f"a {suffix[1:].upper()} file"):
        raw = readers[suffix](path, units_per_metre)
    points, colors, notes, units, painted = raw[:5]
    points = np.asarray(points, np.float64).reshape(-1, 3)
    if colors is not None and len(colors) != len(points):
        raise UserError(f"{path}: {len(points)} points and {len(colors)} colours; damaged, or colours of another type")
    grid = None if raw.grid is None else points.reshape(*raw.grid, 3)
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
    if colors is not None:
        notes += note_on_range(colors)
    else:
        notes.append("no colours; the networks get mid-grey and will see shapes only")
    if units is None and origin is None and (raw.unitless or _is_reconstructed(path)):
        scale, words = scale_by_height(points)
        units = 1 / scale
        notes.append(words)
    cloud = replace(_to_metres(points, colors, units, origin, notes, path), file=path)
    if origin is None:
        pose = raw.pose
        if pose is not None:
            pose[:3, 3] = pose[:3, 3] / cloud.units_per_metre - cloud.origin
        cloud.camera = camera_of(cloud.points, pose, grid)
    return cloud


def _is_reconstructed(path: Path) -> bool:
    """Return True for clouds of COLMAP and nerfstudio, judged by their names; a result's `fused.ply` is in metres."""
    return path.name in RECONSTRUCTED and not has_seal(path)


def _to_metres(
    points: np.ndarray,
    colors: np.ndarray | None,
    units: float | None,
    origin: np.ndarray | None,
    notes: list[str],
    path: Path,
) -> Cloud:
    if units is None:
        units = guess_units(points, notes)
    points = points / units
    near = (np.abs(points - np.median(points[:: max(1, len(points) // 100_000)], axis=0)) < REACH).all(1)
    if not near.all():
        if near.mean() < 0.5:
            raise UserError(
                f"{path}: its points are {np.ptp(points, axis=0).max():.2g} m apart, which no scan measures"
            )
        notes.append(f"{(~near).sum()} of {len(points)} points are more than {REACH / 1000:g} km away and are left out")
        points, colors = points[near], None if colors is None else colors[near]
    if origin is None:
        origin = map_origin(np.median(points[:: max(1, len(points) // 100_000)], axis=0))
        if origin.any():
            notes.append(
                f"coordinates are far from zero (a map's?); computed relative to ({origin[0]:.0f}, {origin[1]:.0f})"
            )
    return Cloud((points - origin).astype(np.float32), colors, origin, units, notes)


def _read_ply(path: Path, units: float | None) -> Raw:
    try:
        elements = read_elements(path)
        vertex = elements["vertex"]
        names = vertex.dtype.names or ()
        splats = splats_of_ply(elements, units)
        if splats is not None:
            return splats
        columns = {plain_name(name.lower()): vertex[name] for name in names}
        # takes precedence over a program's own field of the same name
        columns |= {name.lower(): vertex[name] for name in names}
        points = np.stack([columns[axis] for axis in "xyz"], 1)
        with path.open("rb") as file:
            textured = b"TextureFile" in file.read(4096)
    except (OSError, KeyError, ValueError) as error:
        raise UserError(f"{path}: damaged, or not a PLY with x, y, z ({str(error)[:100]})") from error
    colors, notes = None, list[str]()
    for channels in (("red", "green", "blue"), ("r", "g", "b"), ("diffuse_red", "diffuse_green", "diffuse_blue")):
        if all(channel in columns for channel in channels):
            colors = to_bytes(np.stack([columns[channel] for channel in channels], 1), notes)
            break
    packed = next((columns[name] for name in ("rgb", "rgba") if name in columns), None)
    if colors is None and packed is not None and packed.dtype.itemsize == 4:
        colors = unpack_colors(packed)
    faces = elements.get("face", np.zeros(0))
    painted = textured or "red" in (faces.dtype.names or ())
    if len(faces) and _cover(faces, len(points)) and (is_sparse(points, units) or (colors is None and painted)):
        return read_mesh(path, units, colors)
    return Raw(points, colors, notes, units, len(faces) > 0)


def _cover(faces: np.ndarray, count: int) -> bool:
    """Return True if faces use at least half of the vertices, since a few stray faces among points are no surface."""
    names = [name for name in ("vertex_indices", "vertex_index") if name in (faces.dtype.names or ())]
    return 2 * (len(np.unique(faces[names[0]])) if names else 3 * len(faces)) >= count
