"""OBJ with labels: all lines of the file, faces in groups by class, and a separate table of the vertices' labels."""

import csv
import io
import re
from pathlib import Path

import numpy as np

from xmask3d.files import atomic_write
from xmask3d.scan.writing.added import UNLABELLED_NAME, Added
from xmask3d.scan.writing.assets import copy_assets
from xmask3d.seal import sealed


def positions(path: Path) -> np.ndarray:
    """Read the positions of the vertices, n x 3 float64 in the file's unit."""
    lines = [line.split()[1:4] for line in path.read_bytes().splitlines() if line.lstrip()[:2] in (b"v ", b"v\t")]
    return np.array(lines, np.float64).reshape(-1, 3)


def write(source: Path, target: Path, added: Added) -> None:
    """Write a copy with `g` lines for the classes of faces; without colours and materials, use those of the classes.

    If the labels are to be painted, materials of the classes replace the file's own; otherwise the files it names are
    copied.
    """
    lines = [line.rstrip(b"\r") for line in source.read_bytes().split(b"\n")]
    own = any(line.lstrip().startswith(b"usemtl") for line in lines)
    painted = added.paint or not own
    tokens = [re.sub(r"\W+", "_", name).strip("_") or "class" for name in [*added.names, UNLABELLED_NAME]]
    out = [f"# {remark}".encode() for remark in added.remarks()]
    if painted:
        out.append(f"mtllib {target.stem}.mtl".encode())
    seen, last = 0, None
    for line in lines:
        words = line.split()
        kind = words[0] if words else b""
        if painted and kind in (b"mtllib", b"usemtl"):
            continue
        if kind == b"v":
            if len(words) == 4 and painted:
                line = b" ".join([*words, *(f"{value / 255:.4f}".encode() for value in added.colors[seen])])
            seen += 1
        elif kind in (b"g", b"o"):
            last = None
        elif kind == b"f":
            label = _label_of_face(words[1:], seen, added)
            if label != last:
                out.append(b"g " + tokens[label].encode())
                out += [b"usemtl " + tokens[label].encode()] if painted else []
            last = label
        out.append(line)
    if painted:
        _write_materials(target.with_suffix(".mtl"), tokens, added.palette)
    else:
        named = [line.strip()[6:] for line in lines if line.lstrip().startswith(b"mtllib")]
        copy_assets(source, target.parent, [name.decode("utf-8", "replace") for name in named])
    _write_table(target.with_suffix(".labels.csv"), added)
    atomic_write(target, sealed(lambda part: part.write_bytes(b"\n".join(out))))


def _label_of_face(corners: list[bytes], seen: int, added: Added) -> int:
    """Return the most common class of the corners, in a tie the most confident one; -1 if unlabelled."""
    rows = [int(corner.split(b"/")[0]) for corner in corners]
    rows = [row - 1 if row > 0 else seen + row for row in rows]
    votes: dict[int, float] = {}
    for row in rows:
        votes[int(added.labels[row])] = votes.get(int(added.labels[row]), 0) + 1 + 0.1 * float(added.confidence[row])
    return max(votes, key=lambda label: votes[label])


def _write_materials(path: Path, tokens: list[str], palette: np.ndarray) -> None:
    lines = []
    for token, color in zip(tokens, palette / 255, strict=True):
        lines += [f"newmtl {token}", "Kd " + " ".join(f"{value:.4f}" for value in color)]
    atomic_write(path, "\n".join([*lines, ""]))


def _write_table(path: Path, added: Added) -> None:
    names = [*added.names, UNLABELLED_NAME]
    table = io.StringIO()
    writer = csv.writer(table, lineterminator="\n")
    writer.writerow(["label", "class", "confidence"])
    rows = zip(added.labels.tolist(), added.confidence.tolist(), strict=True)
    writer.writerows([label, names[label], f"{confidence:.4g}"] for label, confidence in rows)
    atomic_write(path, table.getvalue())
