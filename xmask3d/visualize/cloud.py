"""Coloured point clouds as PLY files, and the colours of classes."""

import re
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from xmask3d.files import atomic_write
from xmask3d.geometry.ply import write_elements
from xmask3d.seal import UNSEALED, sealed

UNLABELLED = (90, 90, 90)
PALETTE = (
    (240, 105, 15), (60, 135, 180), (120, 195, 75), (150, 90, 255), (165, 75, 15), (0, 150, 150), (210, 255, 75),
    (105, 180, 255), (135, 30, 30), (60, 150, 75), (195, 210, 240), (105, 15, 150), (165, 195, 135), (45, 30, 255),
    (180, 255, 210), (120, 105, 210), (45, 75, 105), (165, 255, 120), (150, 195, 180), (90, 15, 195),
)  # fmt: skip
"""Colours that differ by at least 20 in CIELAB from each other and from `UNLABELLED`, for normal sight, protanopia and
deuteranopia (simulated after Machado et al., 2009). They were found by greedy packing of the space common to all
three."""

KNOWN = {
    "chair": 0, "desk": 1, "bathtub": 2, "sofa": 3, "couch": 3, "door": 4, "counter": 5, "picture": 6, "painting": 6,
    "table": 7, "cabinet": 8, "wardrobe": 8, "bookshelf": 9, "shelf": 9, "wall": 10, "curtain": 11, "floor": 12,
    "refrigerator": 13, "fridge": 13, "ceiling": 14, "bed": 15, "sink": 16, "toilet": 17, "window": 18,
    "shower curtain": 19, "plant": 2, "potted plant": 2, "lamp": 6, "monitor": 16, "tv": 16, "television": 16,
    "pillow": 19, "rug": 11, "carpet": 11, "stairs": 8, "person": 17, "beam": 5, "column": 18, "board": 13,
    "clutter": 9,
}  # fmt: skip
"""Indices into `PALETTE` of well-known class names; classes that rarely occur in the same room share one."""


def label_palette(num_classes: int) -> np.ndarray:
    """Choose colours by number; they repeat beyond the length of `PALETTE`.

    Returns:
        (K + 1) x 3 uint8; the last row, dark grey, is for ignored and unknown points (also reached by index -1).
    """
    return np.array([*(PALETTE[i % len(PALETTE)] for i in range(num_classes)), UNLABELLED], np.uint8)


def class_palette(names: Sequence[str]) -> np.ndarray:
    """Choose colours by name: well-known classes have the same colour in every scan, others take the remaining ones.

    Up to `len(PALETTE)` classes all have different colours. With more classes colours repeat, so classes should be
    numbered.

    Args:
        names: K class names.

    Returns:
        (K + 1) x 3 uint8, the last row as in `label_palette`.
    """
    wanted = [KNOWN.get(" ".join(re.findall(r"[^\s_-]+", name.lower()))) for name in names]
    chosen: list[int | None] = [number if number not in wanted[:i] else None for i, number in enumerate(wanted)]
    free = [number for number in range(len(PALETTE)) if number not in chosen]
    for i, number in enumerate(chosen):
        if number is None:
            chosen[i] = free.pop(0) if free else i % len(PALETTE)
    return np.array([*(PALETTE[number or 0] for number in chosen), UNLABELLED], np.uint8)


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
        path: file to write; its folder is created if missing.
        points: n x 3 metres, written as double if they are float64 (which map coordinates need), otherwise as float.
        colors: n x 3 uint8.
        labels: n class ids, written as the vertex property `label` (int).
        confidence: n in [0, 1], written as the vertex property `confidence` (float).
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
    made = sealed(lambda part: write_elements(part, {"vertex": vertices}, [UNSEALED["seal"]]))
    atomic_write(path, made, sync=False)
