"""Labels of raw ScanNet: names and ids from its category table, and labels of vertices."""

import csv
import io
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from xmask3d.errors import UserError
from xmask3d.geometry.ply import read_elements
from xmask3d.guarded import read_object, read_text, reading

LARGEST_NYU40, LARGEST_RAW = 40, 65535  # raw ids are stored in pixels of 16 bits
# NYU40 ids of the 20 benchmark classes; the index of a class is its id in the scene files.
NYU20 = (1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 14, 16, 24, 28, 33, 34, 36, 39)
UNLABELLED = 255


@dataclass(frozen=True)
class Categories:
    """Category table of ScanNet.

    Attributes:
        raw_ids: raw id of each name, as annotators wrote it.
        nyu40: NYU40 id of each raw id, 0 if there is none.
    """

    raw_ids: dict[str, int]
    nyu40: np.ndarray


def read_categories(path: Path) -> Categories:
    """Read `scannetv2-labels.combined.tsv`."""
    try:
        rows = list(csv.DictReader(io.StringIO(read_text(path, "a table of categories"), newline=""), delimiter="\t"))
        for row in rows:
            if not (0 <= int(row["id"]) <= LARGEST_RAW and 0 <= int(row["nyu40id"] or 0) <= LARGEST_NYU40):
                raise ValueError(f"'{row['raw_category']}' has id {row['id']} and nyu40id {row['nyu40id']}")
        raw_ids = {row["raw_category"]: int(row["id"]) for row in rows}
        nyu40 = np.zeros(max(raw_ids.values()) + 1, np.uint8)
        for row in rows:
            nyu40[int(row["id"])] = int(row["nyu40id"] or 0)
    except UserError as error:
        raise UserError(f"{error}; it comes with raw ScanNet") from error
    except (KeyError, ValueError, TypeError, csv.Error) as error:
        raise UserError(f"{path}: not ScanNet's table of categories ({error!r}); fetch it again") from error
    return Categories(raw_ids, nyu40)


def read_table(path: Path, delimiter: str, columns: Sequence[str], number: str | None = None) -> list[dict[str, str]]:
    """Read a table with titles, as dictionaries by title.

    Args:
        columns: titles that must be there.
        number: one of them, whose entries are whole numbers or empty.
    """
    with reading(path, "a table of categories"):
        rows = list(csv.DictReader(read_text(path).splitlines(), delimiter=delimiter))
        if not rows or any(row.get(column) is None for row in rows for column in columns):
            raise ValueError(f"it needs the columns {' and '.join(columns)}")
        if number and not all(0 <= int(row[number] or 0) <= LARGEST_RAW for row in rows):
            raise ValueError(f"{number} is out of range")
    return rows


def read_vertices(path: Path) -> tuple[np.ndarray, np.ndarray]:
    """Read `<scene>_vh_clean_2.ply`: points n x 3 float32 and colours n x 3 uint8."""
    return vertices_of(read_ply(path), path)


def vertices_of(elements: dict[str, np.ndarray], path: Path) -> tuple[np.ndarray, np.ndarray]:
    """Return points n x 3 float32 and colours n x 3 uint8 of a PLY file's elements."""
    vertex = elements["vertex"]
    try:
        points = np.stack([vertex[axis] for axis in "xyz"], 1).astype(np.float32)
        colors = np.stack([vertex[channel] for channel in ("red", "green", "blue")], 1).astype(np.uint8)
    except ValueError as error:
        raise UserError(f"{path}: positions or colours are missing ({error})") from error
    return points, colors


def read_nyu40(path: Path, count: int) -> np.ndarray:
    """Read `<scene>_vh_clean_2.labels.ply`: n NYU40 ids."""
    vertex = read_ply(path)["vertex"]
    try:
        labels = np.asarray(vertex["label"]).astype(np.int64)
    except ValueError as error:
        raise UserError(f"{path}: has no labels ({error})") from error
    if len(labels) != count:
        raise UserError(f"{path}: {len(labels)} labels for {count} vertices")
    return labels


def classes_of_nyu40(labels: np.ndarray) -> np.ndarray:
    """Map NYU40 ids (any shape) to the ids 0..19 of scene files, 255 for the rest."""
    table = np.full(LARGEST_NYU40 + 2, UNLABELLED, np.int64)
    table[list(NYU20)] = np.arange(len(NYU20))
    return table[np.where((labels >= 0) & (labels <= LARGEST_NYU40), labels, LARGEST_NYU40 + 1)]


def read_raw_ids(
    aggregation: Path, segments: Path, ids_of_names: Mapping[str, int], count: int
) -> tuple[np.ndarray, set[str]]:
    """Read the id of each vertex (or face) of a mesh, 0 where unannotated, from the two annotation files.

    Args:
        ids_of_names: ids by the name that annotators wrote.
        count: number of vertices (or faces), each of which has a segment.

    Returns:
        n int64, and the annotated names that have no id.
    """
    segment_of_vertex = _whole_numbers(segments, "segIndices", _read_json(segments, "segIndices"))
    if len(segment_of_vertex) != count:
        raise UserError(f"{segments}: {len(segment_of_vertex)} entries for a mesh of {count}")
    ids = np.zeros(count, np.int64)
    unknown = set()
    groups = _read_json(aggregation, "segGroups")
    if not isinstance(groups, list):
        raise UserError(f"{aggregation}: damaged ('segGroups' is no list); fetch it again")
    for group in groups:
        if not isinstance(group, dict) or not isinstance(group.get("label"), str) or "segments" not in group:
            raise UserError(f"{aggregation}: damaged (a group without 'label' or 'segments'); fetch it again")
        members = _whole_numbers(aggregation, "segments", group["segments"])
        raw_id = ids_of_names.get(group["label"])
        if raw_id is None:
            unknown.add(group["label"])
            continue
        ids[np.isin(segment_of_vertex, members)] = raw_id
    return ids, unknown


def _whole_numbers(path: Path, key: str, value: Any) -> np.ndarray:
    """Convert a list of a JSON file to n int64; numpy would also take fractions, booleans and nested lists."""
    try:
        numbers = np.asarray(value)
    except ValueError:  # nested lists of different lengths
        numbers = np.asarray(None)
    if numbers.ndim != 1 or (numbers.dtype.kind != "i" and len(numbers)):
        raise UserError(f"{path}: damaged ('{key}' is no list of whole numbers); fetch it again")
    return numbers.astype(np.int64)


def _read_json(path: Path, key: str) -> Any:
    content = read_object(path)
    if key not in content:
        raise UserError(f"{path}: damaged, or without '{key}'")
    return content[key]


def read_ply(path: Path) -> dict[str, np.ndarray]:
    """Read the elements of a PLY file, which has vertices. Raises `UserError` naming a missing or damaged one."""
    try:
        elements = read_elements(path)
        elements["vertex"]
        return elements
    except OSError as error:
        raise UserError(f"{path}: cannot be read ({error.strerror})") from error
    except (KeyError, ValueError) as error:
        raise UserError(f"{path}: damaged ({error})") from error
