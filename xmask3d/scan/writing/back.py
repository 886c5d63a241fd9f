"""Writing of a scan's own file, or a copy in another format, with labels for its vertices."""

import tempfile
from collections.abc import Callable
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np

from xmask3d.errors import UserError
from xmask3d.scan.writing import glb, las, obj, pcd, ply
from xmask3d.scan.writing.added import Added
from xmask3d.scan.writing.plain import cloud_file, convert

WRITERS: dict[str, ModuleType] = {
    ".ply": ply, ".pcd": pcd, ".las": las, ".laz": las, ".obj": obj, ".glb": glb,
}  # fmt: skip
"""Formats that can be written with labels."""
PARTS = (".ply", ".pcd", ".las", ".laz")
"""Formats in which some of the vertices can be written with all their fields."""

LabelsAt = Callable[[np.ndarray], Added]
"""Function that maps positions, n x 3 in a file's unit, to their labels."""


def suffix_back(source: Path) -> str:
    """Return the suffix for the labelled copy of a file: its own, or PLY if that format has no fields."""
    return source.suffix.lower() if source.suffix.lower() in WRITERS else ".ply"


def write_back(source: Path, target: Path, labels_at: LabelsAt, rotation: np.ndarray | None = None) -> str | None:
    """Write a file with labels, in the format of the target's suffix.

    Args:
        rotation: 3 x 3, rotates the file's coordinates to z up, so that a GLB made of another file is upright; None for
            no rotation.

    Returns:
        None, or a sentence about parts of the file that could not be kept.

    Raises:
        UserError: a package is missing.
        ValueError, KeyError: the file cannot be written in this way.
    """
    suffix = target.suffix.lower()
    if suffix == source.suffix.lower() or {suffix, source.suffix.lower()} == {".las", ".laz"}:
        writer = WRITERS[suffix]
        writer.write(source, target, labels_at(writer.positions(source)))
        return None
    with tempfile.TemporaryDirectory() as folder:
        plain, lost = convert(source, Path(folder), suffix, target.stem)
        if suffix == ".glb" and rotation is not None:
            glb.stand_upright(plain, rotation)
        WRITERS[suffix].write(plain, target, labels_at(WRITERS[suffix].positions(plain)))
    return lost


def write_cloud(
    target: Path, points: np.ndarray, colors: np.ndarray | None, added: Added, rotation: np.ndarray | None = None
) -> None:
    """Write points in their own colours with labels.

    Args:
        points: n x 3 metres.
        colors: n x 3 uint8, or None for the colours of the classes.
        rotation: 3 x 3, rotates points to z up, so that a GLB is upright; None for no rotation.
    """
    if target.suffix.lower() in (".las", ".laz"):
        las.write_cloud(target, points, added.colors if colors is None else colors, added)
        return
    with tempfile.TemporaryDirectory() as folder:
        plain = cloud_file(Path(folder), target.suffix.lower(), points, colors)
        if plain.suffix == ".glb" and rotation is not None:
            glb.stand_upright(plain, rotation)
        WRITERS[target.suffix.lower()].write(plain, target, added)


def write_parts(source: Path, folder: Path, labels_at: LabelsAt, name_of: Callable[[int], str]) -> list[Path]:
    """Write one file per object, with all data of the scan's file on its vertices and faces.

    Args:
        labels_at: function for labels with objects.
        name_of: function from an object's number to the name of its file without suffix.
    """
    suffix = source.suffix.lower()
    written = []
    if suffix in PARTS:
        added = labels_at(WRITERS[suffix].positions(source))
        for number, kept in _members(added):
            written.append(folder / f"{name_of(number)}{suffix}")
            WRITERS[suffix].write_part(source, written[-1], added, kept)
        return written
    from xmask3d.scan.writing.plain import export_mesh, load_mesh

    mesh: Any = load_mesh(source)
    suffix = suffix_back(source)
    added = labels_at(np.asarray(mesh.vertices))
    for number, kept in _members(added):
        faces = np.flatnonzero(kept[mesh.faces].all(1))
        if not len(faces):
            continue
        written.append(folder / f"{name_of(number)}{suffix}")
        with tempfile.TemporaryDirectory() as temporary:
            plain = export_mesh(mesh.submesh([faces], append=True, repair=False), Path(temporary), suffix, "objects")
            writer = WRITERS[suffix]
            writer.write(plain, written[-1], labels_at(writer.positions(plain)))
    return written


def _members(added: Added) -> list[tuple[int, np.ndarray]]:
    if added.objects is None:
        raise UserError("these labels separate no objects; segment again with --instances")
    numbers = np.unique(added.objects[added.objects >= 0]).tolist()
    return [(number, added.objects == number) for number in numbers]
