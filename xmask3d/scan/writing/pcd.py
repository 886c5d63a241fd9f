"""PCD with labels: all fields, the viewpoint and the order of points are kept."""

import re
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from xmask3d.files import atomic_write
from xmask3d.scan.cloud_pcd import lzf_decompress
from xmask3d.scan.writing.added import Added, widen
from xmask3d.seal import sealed

TYPES = {"i": "I", "u": "U", "f": "F"}
KINDS = {"I": "i", "U": "u", "F": "f"}


@dataclass
class PcdRows:
    """Table of a PCD file.

    Attributes:
        header: lines above the data.
        fields: name, numpy kind and count of each column.
        rows: n x k uint8, or lines of text.
    """

    header: list[str]
    fields: list[tuple[str, str, int]]
    rows: np.ndarray | list[bytes]

    @classmethod
    def read(cls, path: Path) -> "PcdRows":
        """Read header and rows. Raises `ValueError` or `KeyError` if they do not fit together."""
        data = path.read_bytes()
        end = re.search(rb"^DATA[^\n]*\n", data, re.MULTILINE)
        if end is None:
            raise ValueError("no DATA line")
        header = data[: end.end()].decode("latin-1").splitlines()
        words = {line.split()[0].upper(): line.split()[1:] for line in header if line.split() and line[0] != "#"}
        counts = [int(count) for count in words.get("COUNT", ["1"] * len(words["FIELDS"]))]
        kinds = [KINDS[kind] + size for kind, size in zip(words["TYPE"], words["SIZE"], strict=True)]
        fields = list(zip(words["FIELDS"], kinds, counts, strict=True))
        count, form, body = int(words["POINTS"][0]), words["DATA"][0], data[end.end() :]
        if form == "ascii":
            lines = [line.strip() for line in body.splitlines() if line.strip()]
            if len(lines) != count:
                raise ValueError(f"{len(lines)} lines for {count} points")
            return cls(header, fields, lines)
        sizes = [np.dtype(kind).itemsize * width for _, kind, width in fields]
        if form == "binary_compressed":
            packed, size = (int(value) for value in np.frombuffer(body[:8], "<u4"))
            flat = np.frombuffer(lzf_decompress(body[8 : 8 + packed], size), np.uint8)
            starts = np.cumsum([0, *sizes]) * count
            parts = [flat[a : a + size * count].reshape(count, size) for a, size in zip(starts, sizes, strict=False)]
            return cls(header, fields, np.concatenate(parts, axis=1))
        return cls(header, fields, np.frombuffer(body, np.uint8, count * sum(sizes)).reshape(count, -1))

    def column(self, name: str) -> np.ndarray:
        """Return a column with one number per row, n; `name` is in lower case."""
        names = [field[0].lower() for field in self.fields]
        number = names.index(name)
        if isinstance(self.rows, list):
            place = sum(width for _, _, width in self.fields[:number])
            return np.array([float(line.split()[place]) for line in self.rows])
        sizes = [np.dtype(kind).itemsize * width for _, kind, width in self.fields]
        start, kind = sum(sizes[:number]), np.dtype(f"<{self.fields[number][1]}")
        return np.ascontiguousarray(self.rows[:, start : start + kind.itemsize]).view(kind)[:, 0]


def positions(path: Path) -> np.ndarray:
    """Read the positions of the points, n x 3 float64 in the file's unit."""
    table = PcdRows.read(path)
    return np.stack([table.column(axis) for axis in "xyz"], 1).astype(np.float64)


def write(source: Path, target: Path, added: Added) -> None:
    """Write a copy of a file with added fields; compressed data become plain binary."""
    table = PcdRows.read(source)
    write_rows(target, table, added, None)


def write_part(source: Path, target: Path, added: Added, kept: np.ndarray) -> None:
    """Write some points, n bool, with all their fields; `added` has the labels of all points."""
    table = PcdRows.read(source)
    rows = [line for line, keep in zip(table.rows, kept, strict=True) if keep] if isinstance(
        table.rows, list) else table.rows[kept]  # fmt: skip
    write_rows(target, PcdRows(table.header, table.fields, rows), added.of(kept), len(rows))


def write_rows(target: Path, table: PcdRows, added: Added, count: int | None) -> None:
    """Write rows with the fields of labels.

    Args:
        count: number of points, if it differs from that in the header.
    """
    columns = added.columns([name for name, _, _ in table.fields])
    if not {"rgb", "rgba", "r", "red"} & {name.lower() for name, _, _ in table.fields}:
        red, green, blue = added.colors.astype(np.uint32).T
        columns["rgb"] = ((red << 16) | (green << 8) | blue).astype(np.uint32).view(np.float32)
        if isinstance(table.rows, list):  # as text the bits would be a number that few programs accept
            columns["rgb"] = columns["rgb"].view(np.uint32)
    more = {
        "FIELDS": columns.keys(),
        "SIZE": [str(values.itemsize) for values in columns.values()],
        "TYPE": [TYPES[values.dtype.kind] for values in columns.values()],
        "COUNT": ["1"] * len(columns),
    }
    lines = [f"# {remark}" for remark in added.remarks()]
    for line in table.header:
        key = line.split()[0].upper() if line.split() else ""
        if key in more:
            line = " ".join([line.rstrip(), *more[key]])
        elif count is not None and key in ("WIDTH", "HEIGHT", "POINTS"):
            line = f"{key} {1 if key == 'HEIGHT' else count}"
        elif key == "DATA":
            line = "DATA ascii" if isinstance(table.rows, list) else "DATA binary"
        lines.append(line)
    content = ("\n".join(lines) + "\n").encode("latin-1", "replace") + widen(table.rows, list(columns.values()))
    atomic_write(target, sealed(lambda part: part.write_bytes(content)))
