"""Labels in a result's folder, read back."""

import csv
import io
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from xmask3d.errors import UserError
from xmask3d.geometry.ply import read_elements
from xmask3d.guarded import read_text
from xmask3d.seal import check_seal
from xmask3d.segment.folder import SUMMARY, read_summary


@dataclass
class SavedLabels:
    """Content of `labels.ply` and `summary.json`.

    Attributes:
        title: name of the scan.
        points: n x 3 float64 metres from `origin`, in the scan's own frame.
        labels: n int64 class ids, -1 unlabelled. confidence: n in [0, 1].
        names: class names. words: queries behind the names, with synonyms.
        origin: 3. rotation: 3 x 3, rotates points upright.
        objects: n object numbers, -1 for none; None if objects were not separated. object_names: class of each.
    """

    title: str
    points: np.ndarray
    labels: np.ndarray
    confidence: np.ndarray
    names: list[str]
    words: list[str]
    origin: np.ndarray
    rotation: np.ndarray
    objects: np.ndarray | None = None
    object_names: list[str] = field(default_factory=list)


def read_labels(folder: Path) -> SavedLabels | None:
    """Read the labels in a result's folder; None if there are none.

    Raises:
        UserError: one of the two files is damaged, or they do not fit together.
    """
    ply, said = folder / "labels.ply", read_summary(folder)
    if not said or not ply.is_file():
        return None
    check_seal(ply, "delete it to see the features alone, or segment the scan again")
    try:
        vertices = read_elements(ply)["vertex"]
        points = np.stack([vertices[axis] for axis in "xyz"], 1).astype(np.float64)
        labels, confidence = vertices["label"].astype(np.int64), np.asarray(vertices["confidence"])
    except (KeyError, ValueError) as error:
        remedy = "delete it to see the features alone, or segment the scan again"
        raise UserError(f"{ply}: damaged ({error}); {remedy}") from error
    names, count = said.get("names"), int(labels.max(initial=-1)) + 1
    if not isinstance(names, list) or len(names) < count:
        raise UserError(
            f"{folder / SUMMARY}: damaged (not the names of the {count} classes in {ply.name}); "
            "delete it, or segment the scan again"
        )
    words = said.get("words", names)
    try:
        origin = np.array(said.get("origin", np.zeros(3)), np.float64).reshape(3)
        rotation = np.array(said.get("rotation", np.eye(3)), np.float64).reshape(3, 3)
    except (TypeError, ValueError) as error:
        raise UserError(f"{folder / SUMMARY}: damaged ({error}); delete it, or segment the scan again") from error
    objects, object_names = _read_objects(folder, len(points))
    return SavedLabels(
        title=Path(str(said.get("scan", folder.name))).name,  # used in file names of exports
        points=points - origin,
        labels=labels,
        confidence=confidence,
        names=names,
        words=words if isinstance(words, list) and len(words) == len(names) else names,
        origin=origin,
        rotation=rotation,
        objects=objects,
        object_names=object_names,
    )


def _read_objects(folder: Path, count: int) -> tuple[np.ndarray | None, list[str]]:
    """Read the object number of each of `count` points, and the class of each object; None if there are none."""
    ply, table = folder / "objects.ply", folder / "objects.csv"
    if not ply.is_file() or not table.is_file():
        return None, []
    try:
        objects = read_elements(ply)["vertex"]["label"].astype(np.int64)
        names = [row["class"] for row in csv.DictReader(io.StringIO(read_text(table), newline=""))]
    except (KeyError, ValueError, csv.Error) as error:
        raise UserError(f"{ply}: damaged ({error}); delete it to see the labels, or segment again") from error
    if len(objects) != count or int(objects.max(initial=-1)) >= len(names):
        raise UserError(f"{ply}: does not fit {table.name} and labels.ply; delete it, or segment again")
    return objects, names
