"""Labels to add to the vertices of a file, and the names and colours under which they are written."""

from collections.abc import Collection
from dataclasses import dataclass, replace

import numpy as np

from xmask3d.seal import UNSEALED

SEAL = UNSEALED["seal"]
COLORS = ("red", "green", "blue")
UNLABELLED_NAME = "unlabelled"


@dataclass
class Added:
    """Labels of n vertices.

    Attributes:
        labels: n int32 class ids, -1 unlabelled.
        confidence: n float32 in [0, 1].
        names: class names.
        palette: (K + 1) x 3 uint8, colours of the classes; the last one is for unlabelled vertices.
        objects: n int32 object numbers, -1 for none, or None.
        paint: use the colours of classes even if the file has colours of its own.
    """

    labels: np.ndarray
    confidence: np.ndarray
    names: list[str]
    palette: np.ndarray
    objects: np.ndarray | None = None
    paint: bool = False

    @property
    def colors(self) -> np.ndarray:
        """Return the colours of the classes, n x 3 uint8."""
        return self.palette[self.labels]

    def of(self, rows: np.ndarray) -> "Added":
        """Return the labels of some vertices, by their numbers or a mask."""
        objects = None if self.objects is None else self.objects[rows]
        return replace(self, labels=self.labels[rows], confidence=self.confidence[rows], objects=objects)

    def columns(self, taken: Collection[str]) -> dict[str, np.ndarray]:
        """Return the columns to add, under names that are free in a file."""
        columns = {"label": self.labels.astype("i4"), "confidence": self.confidence.astype("f4")}
        if self.objects is not None:
            columns["object"] = self.objects.astype("i4")
        return {free_name(name, taken): values for name, values in columns.items()}

    def remarks(self) -> list[str]:
        """Return lines that explain the labels, and the placeholder for the file's digest."""
        return [SEAL, *(f"label {number} {' '.join(name.split())}" for number, name in enumerate(self.names))]


def free_name(name: str, taken: Collection[str]) -> str:
    """Return a name that is not taken, so that a file's own labels, which may be the truth, are kept."""
    candidates = [name, f"xmask3d_{name}", *(f"xmask3d_{name}_{number}" for number in range(2, 100))]
    return next(candidate for candidate in candidates if candidate not in taken)


def widen(rows: np.ndarray | list[bytes], columns: list[np.ndarray], order: str = "<") -> bytes:
    """Append numbers to every row of a table.

    Args:
        rows: n x k uint8, the bytes of binary rows, or n lines of text without their ends.
        columns: columns of n numbers each.
        order: byte order of binary rows.
    """
    if isinstance(rows, list):
        words = zip(*([_text(value) for value in column.tolist()] for column in columns), strict=True)
        return b"".join(b" ".join([row, *more]) + b"\n" for row, more in zip(rows, words, strict=True))
    parts = [np.ascontiguousarray(column.astype(f"{order}{column.dtype.str[1:]}")) for column in columns]
    return np.concatenate([rows, *(part.view(np.uint8).reshape(len(rows), -1) for part in parts)], axis=1).tobytes()


def _text(value: float) -> bytes:
    return (f"{value:.6g}" if isinstance(value, float) else str(value)).encode()
