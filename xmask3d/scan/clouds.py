"""Point clouds from files: PLY, PCD, LAS / LAZ, OBJ, STL, OFF, XYZ; with their units and oddities mended."""

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from xmask3d.errors import UserError, missing_extra
from xmask3d.geometry.ply import read_elements

SUFFIXES = (".ply", ".pcd", ".las", ".laz", ".obj", ".stl", ".off", ".glb", ".xyz", ".txt", ".pts")
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


class Raw(NamedTuple):
    """A file as it is: points n x 3, colours n x 3 uint8 or None, notes, and the units a metre if they were needed."""

    points: np.ndarray
    colors: np.ndarray | None
    notes: list[str]
    units: float | None


def map_origin(centre: np.ndarray) -> np.ndarray:
    """3 float64 whole metres to count positions from: 0, but near a centre so far away that float32 loses millimetres.

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
    readers = {".ply": _read_ply, ".pcd": _read_pcd, ".las": _read_las, ".laz": _read_las}
    readers |= dict.fromkeys((".xyz", ".txt", ".pts"), _read_text)
    readers |= {".obj": _read_obj} | dict.fromkeys((".stl", ".off", ".glb"), _read_mesh)
    if suffix not in readers:
        raise UserError(f"{path}: not a point cloud that is understood ({', '.join(SUFFIXES)})")
    points, colors, notes, units = readers[suffix](path, units_per_metre)
    points = np.asarray(points, np.float64).reshape(-1, 3)
    finite = np.isfinite(points).all(1)
    if not finite.all():
        notes.append(f"{(~finite).sum()} of {len(points)} points are NaN or infinite and are left out")
        points, colors = points[finite], None if colors is None else colors[finite]
    if not len(points):
        raise UserError(f"{path}: has no points")
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
    """Millimetres or centimetres where the extent is no room's or building's in metres."""
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
            colors = _to_bytes(np.stack([vertex[channel] for channel in channels], 1))
            break
    if "f_dc_0" in names:
        colors = _to_bytes(np.clip(0.5 + 0.2820948 * np.stack([vertex[f"f_dc_{i}"] for i in range(3)], 1), 0, 1))
    if len(elements.get("face", ())) and _is_sparse(points, units):
        return _read_mesh(path, units)
    return Raw(points, colors, [], units)


def _to_bytes(colors: np.ndarray) -> np.ndarray:
    """Colours as uint8 from bytes, 16-bit numbers or floats in [0, 1] (or 0..255)."""
    if colors.dtype == np.uint8:
        return colors
    if np.issubdtype(colors.dtype, np.floating):
        colors = np.nan_to_num(colors)
        return np.clip(np.rint(colors * (255 if colors.max(initial=0) <= 1.0 else 1)), 0, 255).astype(np.uint8)
    return (colors >> 8).astype(np.uint8) if colors.max(initial=0) > 255 else colors.astype(np.uint8)


def _is_sparse(points: np.ndarray, units: float | None) -> bool:
    """Whether a mesh has too few vertices to stand for its surface."""
    points = points[np.isfinite(points).all(1)]
    if not 0 < len(points) <= 200_000:
        return False
    extent = np.ptp(points, axis=0) / (units or _guess_units(points, []))
    area = extent[0] * extent[1] + extent[1] * extent[2] + extent[0] * extent[2]
    return len(points) < 0.1 * area / SPACING**2 and float(extent.max()) < 100


def _read_mesh(path: Path, units: float | None) -> Raw:
    import trimesh

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
    if not len(mesh.faces) or not _is_sparse(vertices, units):
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
    """A mesh, or vertices alone (`v x y z`, perhaps with `r g b` in [0, 1]), which mesh readers take for nothing."""
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
            return Raw(table[:, :3], _to_bytes(table[:, 3:6]) if table.shape[1] == 6 else None, [], units)
    except (OSError, ValueError) as error:
        raise UserError(f"{path}: cannot be read as OBJ ({str(error)[:100]})") from error
    return _read_mesh(path, units)


def _read_las(path: Path, units: float | None) -> Raw:
    try:
        import laspy
    except ImportError as error:
        raise missing_extra(f"{path}: reading LAS", "formats") from error
    try:
        las = laspy.read(str(path))
        points = np.stack([las.x, las.y, las.z], 1)
    except Exception as error:
        # laspy's and its back ends' errors have no common base.
        raise UserError(f"{path}: cannot be read as LAS ({str(error)[:100]})") from error
    names = set(las.point_format.dimension_names)
    colors = None
    if {"red", "green", "blue"} <= names:
        colors = _to_bytes(np.stack([np.asarray(las[name]) for name in ("red", "green", "blue")], 1))
    return Raw(points, colors, [], units)


def _read_text(path: Path, units: float | None) -> Raw:
    """Lines of x y z, perhaps with r g b (intensity r g b, r g b alpha) after them."""
    import warnings

    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # numpy warns of a file without data; said below in better words
            first = path.open(encoding="utf-8", errors="replace").readline()
            skip = 1 if len(first.split()) == 1 else 0  # PTS files begin with the number of points
            table = np.loadtxt(path, ndmin=2, skiprows=skip, comments=("#", "//"))
    except (OSError, ValueError) as error:
        raise UserError(f"{path}: not lines of x y z [r g b] ({str(error)[:100]})") from error
    if not table.size:
        return Raw(np.zeros((0, 3)), None, [], units)
    if table.shape[1] < 3:
        raise UserError(f"{path}: lines have {table.shape[1]} numbers, expected x y z [r g b]")
    colors, notes = _text_colors(table)
    return Raw(table[:, :3], colors, notes, units)


def _text_colors(table: np.ndarray) -> tuple[np.ndarray | None, list[str]]:
    """Colours among the columns after x y z, n x 3 uint8 or None, and how the columns are read where it is a guess."""
    width = table.shape[1]
    if width == 3:
        return None, []
    if width not in (6, 7):
        return None, [f"{width} numbers a line: read as x y z, the others are not used"]
    values, notes = table[:, -3:], []
    if width == 7:
        opaque = np.ptp(table[:, 6]) == 0 and table[0, 6] in (1, 255)
        alpha = opaque and table[:, 3:6].min() >= 0 and np.ptp(table[:, 4:6], axis=0).any()
        values = table[:, 3:6] if alpha else values
        notes = [f"7 numbers a line: read as x y z {'r g b alpha' if alpha else 'intensity r g b'}"]
    if _are_normals(values):
        return None, [f"{width} numbers a line: read as x y z; three of the others are no colours (normals?)"]
    return _to_bytes(values), notes


def _are_normals(values: np.ndarray) -> bool:
    """Whether n x 3 numbers are directions: some negative, or nearly all of length 1 but no plain red, green, blue."""
    values = values[np.isfinite(values).all(1)]
    if not len(values) or values.min() < 0:
        return len(values) > 0
    unit = np.abs(np.linalg.norm(values, axis=1) - 1) < 0.02
    return bool(unit.mean() > 0.95 and not np.isin(values, (0, 1)).all())


def _read_pcd(path: Path, units: float | None) -> Raw:
    """PCD (Point Cloud Library), version 0.7: ascii, binary and binary_compressed."""
    try:
        with path.open("rb") as stream:
            header = _pcd_header(stream)
            data = stream.read()
        kinds = {"F": "f", "I": "i", "U": "u"}
        counts = header.get("COUNT", ["1"] * len(header["FIELDS"]))
        columns = [
            (name if name != "_" else f"_{i}", kinds[kind] + size, int(count))
            for i, (name, kind, size, count) in enumerate(
                zip(header["FIELDS"], header["TYPE"], header["SIZE"], counts, strict=True)
            )
        ]
        table = _pcd_table(data, columns, header["DATA"][0], int(header["POINTS"][0]))
        points = np.stack([table[axis].reshape(-1) for axis in "xyz"], 1)
    except (OSError, KeyError, ValueError, IndexError) as error:
        raise UserError(f"{path}: damaged, or not a PCD with x, y, z ({str(error)[:100]})") from error
    packed = next((name for name in ("rgb", "rgba") if name in table), None)
    if packed is None:
        return Raw(points, None, [], units)
    words = np.ascontiguousarray(table[packed].reshape(-1).astype(table[packed].dtype.str)).view(np.uint32)
    return Raw(points, np.stack([(words >> shift) & 255 for shift in (16, 8, 0)], 1).astype(np.uint8), [], units)


def _pcd_header(stream) -> dict[str, list[str]]:
    header: dict[str, list[str]] = {}
    while "DATA" not in header:
        line = stream.readline()
        if not line or len(header) > 20:
            raise ValueError("no DATA line")
        words = line.decode("ascii", "replace").split()
        if words and not words[0].startswith("#"):
            header[words[0].upper()] = words[1:]
    return header


def _pcd_table(data: bytes, columns: list[tuple[str, str, int]], form: str, count: int) -> dict[str, np.ndarray]:
    if form == "ascii":
        widths = [width for _, _, width in columns]
        rows = np.array(data.split(), dtype=object).reshape(count, sum(widths))
        starts = np.cumsum([0, *widths])
        return {
            name: _pcd_ascii(rows[:, start : start + width], kind)
            for (name, kind, width), start in zip(columns, starts[:-1], strict=True)
        }
    if form == "binary":
        record = np.dtype([(name, "<" + kind, (width,)) for name, kind, width in columns])
        table = np.frombuffer(data, record, count)
        return {name: table[name] for name, _, _ in columns}
    if form == "binary_compressed":
        packed, size = np.frombuffer(data[:8], "<u4")
        flat = _lzf(data[8 : 8 + int(packed)], int(size))
        result, place = {}, 0
        for name, kind, width in columns:
            values = np.frombuffer(flat, "<" + kind, count * width, place)
            result[name], place = values.reshape(count, width), place + values.nbytes
        return result
    raise ValueError(f"unknown DATA {form}")


def _pcd_ascii(values: np.ndarray, kind: str) -> np.ndarray:
    floats = values.astype(np.float64)
    if kind == "f4" and np.all(floats == np.floor(floats)) and np.abs(floats).max(initial=0) > 1 << 20:
        return floats.astype(np.uint32)  # colours written as the integer that their bits mean
    return floats.astype(kind)


def _lzf(data: bytes, size: int) -> bytes:
    """Undo LZF compression (literal runs and back references)."""
    out = bytearray()
    place = 0
    while place < len(data):
        control = data[place]
        place += 1
        if control < 32:
            out += data[place : place + control + 1]
            place += control + 1
            continue
        length = control >> 5
        if length == 7:
            length += data[place]
            place += 1
        start = len(out) - ((control & 31) << 8) - data[place] - 1
        place += 1
        if start < 0:
            raise ValueError("damaged compressed data")
        for i in range(length + 2):  # may overlap what it writes
            out.append(out[start + i])
    if len(out) != size:
        raise ValueError("damaged compressed data")
    return bytes(out)
