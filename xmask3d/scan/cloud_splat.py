"""Gaussian splats: PLY files of trainers, CloudCompare and SuperSplat (compressed), and .splat files."""

from pathlib import Path

import numpy as np

from xmask3d.errors import UserError
from xmask3d.scan.cloud_raw import Raw, to_bytes

FAINT = 0.1  # smallest opacity at which a splat counts as surface
BULK = (5, 95)  # percentiles of the bulk of the scene, without floating splats
AROUND = 0.5  # share of the bulk's extent by which the scene may extend beyond it
CHUNK = 256  # number of splats that share a range in SuperSplat's compressed PLY
HARMONIC = 0.28209479  # constant of spherical harmonics of degree 0
# record of antimatter15's format
SPLAT = np.dtype([("xyz", "<f4", 3), ("scale", "<f4", 3), ("rgba", "u1", 4), ("turn", "u1", 4)])


def splats_of_ply(elements: dict[str, np.ndarray], units: float | None) -> Raw | None:
    """Return the splats of a PLY file, or None if it has none.

    Args:
        elements: rows under the name of their element.
        units: units per metre, if known.
    """
    vertex = elements["vertex"]
    if {"packed_position", "packed_color"} <= set(vertex.dtype.names or ()) and "chunk" in elements:
        return _kept(*_unpacked(elements["chunk"], vertex), units)
    columns = {plain_name(name): vertex[name] for name in vertex.dtype.names or ()}
    if "f_dc_0" not in columns:
        return None
    points = np.stack([columns[axis] for axis in "xyz"], 1)
    colors = 0.5 + HARMONIC * np.stack([columns[f"f_dc_{i}"] for i in range(3)], 1)
    opacity = columns.get("opacity", np.ones(len(points), np.float32))
    if len(opacity) and (opacity.min() < 0 or opacity.max() > 1):
        opacity = _sigmoid(opacity)
    return _kept(points, np.clip(colors, 0, 1), opacity, units)


def read_splat(path: Path, units: float | None) -> Raw:
    """Read a .splat file.

    Args:
        path: the file, with 32 bytes per splat.
        units: units per metre, if known.
    """
    data = path.read_bytes()
    if len(data) % SPLAT.itemsize:
        raise UserError(f"{path}: damaged, or no .splat file (its size is no multiple of {SPLAT.itemsize} bytes)")
    rows = np.frombuffer(data, SPLAT)
    return _kept(rows["xyz"], rows["rgba"][:, :3] / 255, rows["rgba"][:, 3] / 255, units)


def plain_name(name: str) -> str:
    """Return a field's name as trainers write it, without CloudCompare's prefix scalar_."""
    for prefix in ("scalar_", "scal_"):
        name = name.removeprefix(prefix)
    return name


def _sigmoid(values: np.ndarray) -> np.ndarray:
    return 1 / (1 + np.exp(-np.clip(values, -30, 30)))


def _unpacked(chunks: np.ndarray, vertex: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Return positions, colours and opacities (0..1) of a compressed PLY: 11 + 10 + 11 bits and 4 bytes per splat."""
    of = np.arange(len(vertex)) // CHUNK
    if len(chunks) * CHUNK < len(vertex):
        raise ValueError(f"{len(chunks)} chunks for {len(vertex)} packed splats")
    place, color = vertex["packed_position"], vertex["packed_color"]
    parts = ((place >> 21) / 2047, ((place >> 11) & 1023) / 1023, (place & 2047) / 2047)
    points = [_between(chunks, axis, of, part) for axis, part in zip("xyz", parts, strict=True)]
    channels = [((color >> shift) & 255) / 255 for shift in (24, 16, 8, 0)]
    if "min_r" in (chunks.dtype.names or ()):
        channels[:3] = [_between(chunks, name, of, part) for name, part in zip("rgb", channels[:3], strict=True)]
    return np.stack(points, 1), np.clip(np.stack(channels[:3], 1), 0, 1), channels[3]


def _between(chunks: np.ndarray, name: str, of: np.ndarray, part: np.ndarray) -> np.ndarray:
    low, high = chunks[f"min_{name}"][of].astype(np.float64), chunks[f"max_{name}"][of].astype(np.float64)
    return low + part * (high - low)


def _kept(points: np.ndarray, colors: np.ndarray, opacity: np.ndarray, units: float | None) -> Raw:
    """Remove splats that are hardly visible or float far outside the scene, with a note.

    Args:
        points: n x 3. colors: n x 3 in 0..1. opacity: n in 0..1.
    """
    solid = np.isfinite(points).all(1) & (opacity >= FAINT)
    if not solid.any():
        notes = ["warning: all splats are nearly transparent"]
        return Raw(points, to_bytes(colors.astype(np.float64), notes), notes, units, unitless=True)
    low, high = np.percentile(points[solid][:: max(1, int(solid.sum()) // 100_000)], BULK, axis=0)
    near = ((points >= low - AROUND * (high - low)) & (points <= high + AROUND * (high - low))).all(1)
    notes = [f"{solid.sum()} of {len(points)} splats are opaque enough to be a surface"]
    if (solid & ~near).any():
        notes.append(f"{(solid & ~near).sum()} splats that float far outside the scene are left out")
    kept = solid & near
    return Raw(points[kept], to_bytes(colors[kept].astype(np.float64), notes), notes, units, unitless=True)
