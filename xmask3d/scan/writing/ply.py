"""PLY with labels for clouds, meshes and splats; everything else in the file is kept byte for byte."""

import re
from pathlib import Path

import numpy as np
from numpy.lib.recfunctions import append_fields, repack_fields

from xmask3d.files import atomic_write
from xmask3d.geometry.ply import KINDS, read_elements, read_header, read_rows, write_elements
from xmask3d.scan.writing.added import COLORS, Added, widen
from xmask3d.scan.writing.assets import copy_assets
from xmask3d.seal import sealed

NAMES = {code: name for name, code in KINDS.items()}


def positions(path: Path) -> np.ndarray:
    """Read the positions of the vertices, n x 3 float64 in the file's unit. Raises `ValueError`, `KeyError`."""
    vertex = read_elements(path)["vertex"]
    return np.stack([vertex[axis] for axis in "xyz"], 1).astype(np.float64)


def write(source: Path, target: Path, added: Added) -> None:
    """Write a copy of a file with columns added to its vertices, and copy its textures.

    Raises:
        ValueError: the vertices have a form that is not supported here.
    """
    with source.open("rb") as file:
        order, elements, newline, start = read_header(file)
        size = file.seek(0, 2)
        file.seek(start)
        begin, element = start, elements[0]
        for element in elements:
            begin = file.tell()
            read_rows(file, element, order, size - begin)
            if element.name == "vertex":
                break
        end = file.tell()
    if newline == b"\r" or any(column.length_kind for column in element.properties):
        raise ValueError("lists in vertices, or line ends of an old Macintosh")
    data = source.read_bytes()
    names = [column.name for column in element.properties]
    columns = added.columns(names)
    body = data[begin:end]
    rows: np.ndarray | list[bytes]
    if order:
        table = np.frombuffer(body, element.row([0] * len(names), order)).copy()
        if added.paint and set(COLORS) <= set(names):
            _paint(table, added.colors)
        rows = table.view(np.uint8).reshape(len(table), -1)
    else:
        rows = [line.strip() for line in body.split(b"\n") if line.strip()]
        if added.paint and set(COLORS) <= set(names):
            rows = _painted_lines(rows, [names.index(name) for name in COLORS], added.colors)
    if not has_looks(data[:start]):
        columns |= {name: added.colors[:, i] for i, name in enumerate(COLORS)}
    header = _header(data[:start].splitlines(keepends=True), columns, added.remarks())
    content = b"".join([header, data[start:begin], widen(rows, list(columns.values()), order or "<"), data[end:]])
    copy_assets(source, target.parent, _textures(data[:start]))
    atomic_write(target, sealed(lambda part: part.write_bytes(content)))


def _textures(header: bytes) -> list[str]:
    names = re.findall(rb"^comment TextureFile (.*)$", header, re.MULTILINE)
    return [name.decode("utf-8", "replace").strip() for name in names]


def has_looks(header: bytes) -> bool:
    """Return True if a header names colours, a texture or the colours of splats."""
    return any(word in header for word in (b" red\n", b" red\r", b"diffuse_red", b"TextureFile", b" r\n", b"f_dc_0"))


def write_part(source: Path, target: Path, added: Added, kept: np.ndarray) -> None:
    """Write some vertices with all their columns, and the faces between them with all of theirs.

    Args:
        added: labels of all vertices.
        kept: n bool.
    """
    elements = read_elements(source)
    vertex = elements["vertex"]
    columns = added.of(kept).columns(vertex.dtype.names or ())
    if added.paint and set(COLORS) <= set(vertex.dtype.names or ()):
        vertex = vertex.copy()
        _paint(vertex, added.colors)
    parts = {"vertex": append_fields(vertex[kept], list(columns), list(columns.values()), usemask=False)}
    faces = elements.get("face", np.zeros(0))
    corners = next((n for n in ("vertex_indices", "vertex_index") if n in (faces.dtype.names or ())), None)
    if corners is not None and len(faces):
        whole = kept[faces[corners]].all(1)
        lists = [name for name in faces.dtype.names or () if not name.startswith("length of ")]
        chosen = repack_fields(faces[whole][lists])
        chosen[corners] = (np.cumsum(kept) - 1)[chosen[corners]]
        parts["face"] = chosen
    with source.open("rb") as file:
        textures = _textures(file.read(1 << 16).split(b"end_header")[0])
    copy_assets(source, target.parent, textures)
    remarks = [*added.remarks(), *(f"TextureFile {name}" for name in textures)]
    atomic_write(target, sealed(lambda part: write_elements(part, parts, remarks)))


def _paint(table: np.ndarray, colors: np.ndarray) -> None:
    for i, name in enumerate(COLORS):
        table[name] = colors[:, i] if table.dtype[name].kind in "iu" else colors[:, i] / 255


def _painted_lines(lines: list[bytes], places: list[int], colors: np.ndarray) -> list[bytes]:
    painted = []
    for line, color in zip(lines, colors.tolist(), strict=True):
        words = line.split()
        for place, value in zip(places, color, strict=True):
            words[place] = str(value).encode() if words[place].isdigit() else f"{value / 255:.6g}".encode()
        painted.append(b" ".join(words))
    return painted


def _header(lines: list[bytes], columns: dict[str, np.ndarray], remarks: list[str]) -> bytes:
    """Add properties after those of the vertices, and comments before the first element."""
    ending = b"\r\n" if lines[0].endswith(b"\r\n") else b"\n"
    words = [line.split() for line in lines]
    first = next(i for i, line in enumerate(words) if line[:1] == [b"element"])
    vertex = next(i for i, line in enumerate(words) if line[:2] == [b"element", b"vertex"])
    last = vertex + 1
    while words[last][:1] not in ([b"element"], [b"end_header"]):
        last += 1
    added = [f"property {NAMES[values.dtype.char]} {name}".encode() + ending for name, values in columns.items()]
    comments = [f"comment {remark}".encode("ascii", "replace") + ending for remark in remarks]
    return b"".join([*lines[:first], *comments, *lines[first:last], *added, *lines[last:]])
