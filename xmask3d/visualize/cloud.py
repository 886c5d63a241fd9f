"""Coloured point clouds as PLY files, and the colours of classes."""

import colorsys
from pathlib import Path

import numpy as np

from xmask3d.geometry.ply import write_elements
from xmask3d.seal import UNSEALED, seal

UNLABELLED = (90, 90, 90)


def label_palette(num_classes: int) -> np.ndarray:
    """Choose colours so that neighbours in a class list differ.

    Returns:
        (K + 1) x 3 uint8; the last row, dark grey, is for ignored and unknown points (also reached by index -1).
    """
    golden = 0.61803398875
    colors = [
        colorsys.hsv_to_rgb((0.58 + i * golden) % 1, (0.55, 0.85, 0.7)[i % 3], (0.95, 0.8, 0.65)[i // 3 % 3])
        for i in range(num_classes)
    ]
    scaled = np.rint(np.array(colors, np.float64).reshape(-1, 3) * 255).astype(np.uint8)
    return np.concatenate([scaled, np.array([UNLABELLED], np.uint8)])


def colors_to_bytes(colors: np.ndarray) -> np.ndarray:
    """Convert colours of a `Scene`, n x 3 in [-1, 1], to n x 3 uint8."""
    return np.rint((np.clip(colors, -1, 1) + 1) * 127.5).astype(np.uint8)


def write_ply(
    path: Path,
    points: np.ndarray,
    colors: np.ndarray,
    labels: np.ndarray | None = None,
    confidence: np.ndarray | None = None,
) -> None:
    """Write a binary PLY that MeshLab, CloudCompare and Blender open in colour, with its digest in a comment.

    Args:
        path: its folder is made when missing.
        points: n x 3 metres; of float64, as map coordinates need, they are kept as double, else as float.
        colors: n x 3 uint8.
        labels: n class ids, kept as the vertex property `label` (int).
        confidence: n in [0, 1], kept as the vertex property `confidence` (float).
    """
    number = "f8" if points.dtype == np.float64 else "f4"
    columns: list[tuple[str, str, np.ndarray]] = [(axis, number, points[:, i]) for i, axis in enumerate("xyz")]
    columns += [(name, "u1", colors[:, i]) for i, name in enumerate(("red", "green", "blue"))]
    if labels is not None:
        columns.append(("label", "i4", labels))
    if confidence is not None:
        columns.append(("confidence", "f4", confidence))
    vertices = np.empty(len(points), dtype=[(name, kind) for name, kind, _ in columns])
    for name, _, values in columns:
        vertices[name] = values
    path.parent.mkdir(parents=True, exist_ok=True)
    write_elements(path, {"vertex": vertices}, [UNSEALED["seal"]])
    seal(path)
