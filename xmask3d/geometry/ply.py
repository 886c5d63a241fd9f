"""PLY files as structured arrays: one array per kind of element (vertex, face ...), one column per property.

Both text and binary files of either byte order are read. A header is only trusted once it fits the size of the file.
"""

import io
import re
import struct
from collections.abc import Sequence
from pathlib import Path
from typing import BinaryIO, NamedTuple

import numpy as np

KINDS = {"char": "b", "uchar": "B", "short": "h", "ushort": "H", "int": "i", "uint": "I", "float": "f", "double": "d"}
"""Types of numbers in numpy and struct, by their PLY names; files may also use int8, float64 and so on."""

ALIASES = {np.dtype(kind).name: kind for kind in KINDS.values()}
BYTE_ORDERS = {"ascii": "", "binary_little_endian": "<", "binary_big_endian": ">"}
LARGEST_HEADER = 1 << 20  # bytes


class Property(NamedTuple):
    """Column: its name, the type of its numbers, and the type of the length if it holds lists."""

    name: str
    kind: str
    length_kind: str = ""


class Element(NamedTuple):
    """Kind of element: its name, the number of its rows in the file, and its columns."""

    name: str
    rows: int
    properties: list[Property]

    def row(self, lengths: list[int], order: str = "=") -> np.dtype:
        """Return the type of a row whose lists have these lengths; each list follows its length, `length of ...`.

        Args:
            lengths: one number per column, 0 for columns without lists.
            order: byte order.
        """
        fields: list[tuple] = []
        for column, length in zip(self.properties, lengths, strict=True):
            if column.length_kind:
                fields.append((f"length of {column.name}", order + column.length_kind))
            fields.append((column.name, order + column.kind, *([(length,)] if column.length_kind else [])))
        return np.dtype(fields)


def read_elements(path: Path) -> dict[str, np.ndarray]:
    """Read a PLY file.

    Returns:
        Rows under the name of their element, in the machine's byte order. Lists that all have the same length, such as
        those of triangles, become a column of that width. Rows whose lists differ in length are checked and counted,
        but have no columns.

    Raises:
        ValueError: the file is no PLY file, damaged or truncated; the message names the fault.
        OSError: the file cannot be read.
    """
    with path.open("rb") as file:
        order, elements, newline, start = read_header(file)
        size = file.seek(0, io.SEEK_END)
        file.seek(start)
        body: BinaryIO = file
        if newline == b"\r" and not order:
            body = io.BytesIO(file.read().replace(b"\r", b"\n"))
            size -= start
        return {element.name: read_rows(body, element, order, size - body.tell()) for element in elements}


def write_elements(path: Path, elements: dict[str, np.ndarray], comments: Sequence[str] = ()) -> None:
    """Write a binary PLY file.

    Args:
        path: file in an existing folder.
        elements: structured arrays under the names of their elements; an n x k column becomes lists of k numbers.
        comments: lines for the header.
    """
    names = {code: name for name, code in KINDS.items()}
    header, tables = ["ply", "format binary_little_endian 1.0", *(f"comment {line}" for line in comments)], []
    for element, rows in elements.items():
        header.append(f"element {element} {len(rows)}")
        fields: list[tuple] = []
        for name in rows.dtype.names or ():
            kind, shape = rows.dtype[name].base, rows.dtype[name].shape
            header.append(f"property {'list uchar ' if shape else ''}{names[kind.char]} {name}")
            fields += [(f"length of {name}", "u1")] if shape else []
            fields.append((name, kind.newbyteorder("<"), shape))
        table = np.empty(len(rows), fields)
        for name in table.dtype.names or ():
            lists = name.removeprefix("length of ")
            table[name] = rows[name] if lists == name else rows.dtype[lists].shape[0]
        tables.append(table)
    with path.open("wb") as file:
        file.write("\n".join([*header, "end_header", ""]).encode("ascii", "replace"))
        for table in tables:
            file.write(table.tobytes())


def read_header(file: BinaryIO) -> tuple[str, list[Element], bytes, int]:
    """Read byte order ("" for text), elements, line ending, and the position of the first row."""
    head = file.read(LARGEST_HEADER)
    first = re.match(rb"ply[ \t]*(\r\n|\n|\r)", head)
    if not first:
        raise ValueError("not a PLY file")
    last = re.search(first[1] + rb"end_header[ \t]*" + first[1], head)
    if not last:
        raise ValueError("cut off: its header has no end")
    order: str | None = None
    elements: list[Element] = []
    for line in head[first.end() : last.start()].split(first[1]):
        words = line.decode("latin-1").split()  # comments may be in any encoding
        match words:
            case [] | ["comment" | "obj_info", *_]:
                continue
            case ["format", form, _] if form in BYTE_ORDERS:
                order = BYTE_ORDERS[form]
            case ["element", name, count] if re.fullmatch("[0-9]{1,18}", count):
                elements.append(Element(name, int(count), []))
            case ["property", "list", length_kind, kind, name] if elements and _kind(length_kind) not in "fd":
                elements[-1].properties.append(Property(name, _kind(kind), _kind(length_kind)))
            case ["property", kind, name] if elements:
                elements[-1].properties.append(Property(name, _kind(kind)))
            case _:
                raise ValueError(f"its header says '{' '.join(words)[:60]}'")
    if order is None or len({element.name for element in elements}) < len(elements):
        raise ValueError("its header names no format" if order is None else "its header names an element twice")
    return order, elements, first[1], last.end()


def _kind(name: str) -> str:
    kind = KINDS.get(name) or ALIASES.get(name)
    if kind is None:
        raise ValueError(f"its header names '{name[:40]}' as a kind of number")
    return kind


def read_rows(file: BinaryIO, element: Element, order: str, left: int) -> np.ndarray:
    """Read the rows of an element from the present position of a file, with `left` bytes left."""
    lengths = [0] * len(element.properties)
    if not element.rows:
        return np.zeros(0, element.row(lengths))
    shortest = element.row(lengths, order or "=").itemsize if order else 2 * len(lengths)
    if not lengths or element.rows * shortest > left + (not order):  # the last line of text may have no line ending
        raise ValueError(f"cut off: {element.rows} rows of {element.name}, {left} bytes left")
    if not order:
        return _read_lines(file, element)
    if not any(column.length_kind for column in element.properties):
        return _native(np.fromfile(file, element.row(lengths, order), element.rows))
    start, data = file.tell(), file.read()
    try:
        _, lengths = _walk(data, element, order, 1)
        row = element.row(lengths, order)
        rows = np.frombuffer(data, row, min(element.rows, len(data) // row.itemsize))
        lists = [(f"length of {c.name}", n) for c, n in zip(element.properties, lengths, strict=True) if c.length_kind]
        if len(rows) == element.rows and all((rows[name] == length).all() for name, length in lists):
            end = rows.nbytes
        else:
            end, _ = _walk(data, element, order, element.rows)
            rows = np.zeros(element.rows, [])
    except struct.error as error:
        raise ValueError(f"cut off in its rows of {element.name}") from error
    file.seek(start + end)
    return _native(rows)


def _native(rows: np.ndarray) -> np.ndarray:
    return rows.astype(rows.dtype.newbyteorder("="), copy=False)


def _walk(data: bytes, element: Element, order: str, count: int) -> tuple[int, list[int]]:
    """Return the end of the first `count` rows, and the lengths of the lists in the last of them."""
    place, lengths = 0, [0] * len(element.properties)
    for _ in range(count):
        for i, column in enumerate(element.properties):
            length = 1
            if column.length_kind:
                (length,) = struct.unpack_from(order + column.length_kind, data, place)
                place += struct.calcsize("=" + column.length_kind)
                lengths[i] = length
            place += length * struct.calcsize("=" + column.kind)
            if length < 0 or place > len(data):
                raise struct.error
    return place, lengths


def _read_lines(file: BinaryIO, element: Element) -> np.ndarray:
    """Read rows of text, one per line."""
    lines: list[str] = []
    while len(lines) < element.rows:
        line = file.readline()
        if not line:
            raise ValueError(f"cut off: {len(lines)} of {element.rows} rows of {element.name}")
        if line.strip():
            lines.append(line.decode("latin-1"))
    lengths = _lengths_of_line(lines[0], element)
    if any(column.length_kind for column in element.properties) and any(
        _lengths_of_line(line, element) != lengths for line in lines
    ):
        return np.zeros(element.rows, [])
    table = np.loadtxt(lines, ndmin=2, comments=None)
    rows = np.empty(element.rows, element.row(lengths))
    place = 0
    with np.errstate(invalid="ignore"):
        for name in rows.dtype.names or ():
            width = rows.dtype[name].shape
            values = table[:, place : place + width[0]] if width else table[:, place]
            place += width[0] if width else 1
            rows[name] = values
            if rows.dtype[name].base.kind in "iu" and not np.array_equal(rows[name], values):
                raise ValueError(f"a number of {name} is too large for its kind")
    return rows


def _lengths_of_line(line: str, element: Element) -> list[int]:
    words, lengths, place = line.split(), [0] * len(element.properties), 0
    for i, column in enumerate(element.properties):
        if column.length_kind and words[place : place + 1] and words[place].isdecimal():
            lengths[i] = int(words[place])
            place += lengths[i]
        place += 1
    if place != len(words):
        raise ValueError(f"a row of {element.name} has {len(words)} numbers, not {place}")
    return lengths
