"""Export of labels for other programs: the scan's own file, other formats, one file per object, boxes, ScanNet text."""

import json
import re
import struct
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from xmask3d.data.files import write_points
from xmask3d.data.id_files import write_prediction
from xmask3d.errors import UserError
from xmask3d.files import atomic_write
from xmask3d.inference.instances import mean_confidences
from xmask3d.scan.writing.added import Added
from xmask3d.scan.writing.back import WRITERS, suffix_back, write_back, write_cloud, write_parts
from xmask3d.scan.writing.plain import MESHES
from xmask3d.segment.answer import Answer
from xmask3d.segment.boxes import boxes
from xmask3d.splits import load_benchmark

KINDS = ("same", "objects", "boxes", "scannet", "training", *(suffix[1:] for suffix in WRITERS))
NOT_WRITTEN = (ValueError, KeyError, IndexError, TypeError, struct.error)
"""Errors of writers about files of an unknown form, and files that changed since they were labelled."""
UNKNOWN = 255  # id of unlabelled points in processed data sets
OWN = "labelled"  # name of the scan's own file with labels
FUSED = "fused.ply"  # name of the cloud that was fused from a recording's frames


@dataclass
class Exports:
    """Files that were written, and sentences about them."""

    files: list[Path] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)


def file_name(words: str) -> str:
    """Return words in a form that fits into a file name."""
    return re.sub(r"[^\w\-]+", "_", words).strip("_")[:60] or "phrase"


def own_file_name(answer: Answer) -> str:
    """Return the name of the scan's own file with labels."""
    return FUSED if answer.file is None else f"{OWN}{suffix_back(answer.file)}"


def export_answer(answer: Answer, to: str, folder: Path, paint: bool = False) -> Exports:
    """Write labels in a format.

    Args:
        to: one of `KINDS`, or the path of a file whose suffix names a format.
        folder: folder for files without a path of their own.
        paint: use the colours of classes even if the scan has colours of its own.

    Raises:
        UserError: the format is unknown or cannot hold the scan, or a package is missing.
    """
    if to == "objects":
        return _write_objects(answer.with_objects(), folder / "objects", paint)
    if to == "scannet":
        return write_scannet(answer.with_objects(), folder / "scannet")
    if to == "training":
        return write_training(answer, folder / "training")
    if to == "boxes" or Path(to).suffix.lower() == ".json":
        path = folder / "boxes.json" if to == "boxes" else Path(to)
        atomic_write(path, json.dumps({"scan": answer.name, "unit": "metre", "objects": boxes(answer.with_objects())},
                                      indent=1, ensure_ascii=False) + "\n")  # fmt: skip
        return Exports([path])
    if to == "same":
        return write_file(answer, folder / own_file_name(answer), paint)
    target = folder / f"{OWN}.{to}" if to in KINDS else Path(to)
    if target.suffix.lower() not in WRITERS:
        known = ", ".join(KINDS)
        raise UserError(f"--to {to}: not a format that is written; known: {known}, or a path with such a suffix")
    return write_file(answer, target, paint)


def write_file(answer: Answer, target: Path, paint: bool = False) -> Exports:
    """Write the scan's own file with labels or, if that is impossible, its points in their own colours."""
    exports, source = Exports([target]), answer.file
    if source is not None and target.exists() and target.samefile(source):
        raise UserError(f"{target}: is the scan itself; name another file")
    if source is not None and source.is_file():

        def labels_at(places: np.ndarray) -> Added:
            added, same = answer.added_at(places, answer.units, paint)
            if not same:
                count = f"{len(answer.points):,}"
                exports.notes.append(f"{len(places):,} vertices take the label of the nearest of {count} points")
            return added

        try:
            lost = write_back(source, target, labels_at, answer.rotation)
            exports.notes += [f"{target.name}: {lost}"] if lost else []
            return exports
        except NOT_WRITTEN as error:
            if source.suffix.lower() == target.suffix.lower() or source.suffix.lower() in MESHES:
                exports.notes = [f"{target.name}: points alone ({' '.join(str(error).split())[:80]})"]
    elif source is not None:
        exports.notes.append(f"{source}: no longer there; {target.name} has its points alone")
    write_cloud(target, answer.points, answer.colors, answer.added(paint), answer.rotation)
    return exports


def _write_objects(answer: Answer, folder: Path, paint: bool) -> Exports:
    """Write one file per object, and `objects.json` with their boxes; files of an earlier export are removed."""
    index = folder / "objects.json"
    listed = boxes(answer)

    def name_of(number: int) -> str:
        return f"{number:03}_{file_name(listed[number]['class'])}"

    if index.is_file():
        for path in folder.glob("[0-9][0-9][0-9]*_*"):
            path.unlink()
    folder.mkdir(parents=True, exist_ok=True)
    exports, source, written = Exports(), answer.file, None
    if source is not None and source.is_file():
        try:
            written = write_parts(source, folder, lambda at: answer.added_at(at, answer.units, paint)[0], name_of)
        except NOT_WRITTEN as error:
            exports.notes.append(f"points alone: {source.name} is not written in parts ({str(error)[:80]})")
    if written is None:
        written, added = [], answer.added(paint)
        for number in range(len(listed)):
            kept = np.equal(np.asarray(answer.objects), number)
            written.append(folder / f"{name_of(number)}.ply")
            colors = None if answer.colors is None else answer.colors[kept]
            write_cloud(written[-1], answer.points[kept], colors, added.of(kept))
    files = {int(path.name.split("_")[0]): path.name for path in written}
    said = [{**box, "file": files.get(number)} for number, box in enumerate(listed)]
    atomic_write(index, json.dumps({"scan": answer.name, "unit": "metre", "objects": said}, indent=1) + "\n")
    exports.files = [*written, index]
    return exports


def write_scannet(answer: Answer, folder: Path) -> Exports:
    """Write the text files of ScanNet's benchmarks: `semantic/<scan>.txt`, `instance/<scan>.txt` and its masks.

    Ids are those that ScanNet gives to the names of the classes: NYU40 if all names are among the 20 classes, otherwise
    those of ScanNet200. A mesh has one line per vertex, other scans have one line per point.
    """
    ids, missing = _scannet_ids(answer.names)
    exports = Exports(notes=[f"not a class of ScanNet, written as 0: {', '.join(missing)}"] if missing else [])
    added = answer.added()
    if answer.file is not None and answer.file.suffix.lower() in WRITERS and answer.file.is_file():
        try:
            places = WRITERS[answer.file.suffix.lower()].positions(answer.file)
            added, _ = answer.added_at(places, answer.units)
        except NOT_WRITTEN as error:
            exports.notes.append(f"a line a labelled point: {answer.file.name} is not read again ({str(error)[:80]})")
    scene = answer.name.removesuffix("_vh_clean_2")
    objects, known = np.asarray(added.objects), dict(zip(answer.names, ids.tolist(), strict=True))
    names = answer.object_names or []
    sureness = mean_confidences(objects, added.confidence, len(names))
    labels = np.append(ids, 0)[added.labels]
    exports.files = write_prediction(folder, scene, labels, objects, [known.get(n, 0) for n in names], sureness)
    return exports


def write_training(answer: Answer, folder: Path) -> Exports:
    """Write points and labels in the layout of processed data sets: `scannet_3d/train/<scan>_vh_clean_2.pth`.

    Labels are the ids of ScanNet's 20 classes in that layout; points of all other names are unlabelled (255).
    """
    benchmark = load_benchmark("scannet20full/all")
    ids = dict(zip(benchmark.class_names, benchmark.file_ids_3d, strict=True))
    table = np.array([*(ids.get(name, UNKNOWN) for name in answer.names), UNKNOWN])
    missing = [name for name in answer.names if name not in ids]
    if len(missing) == len(answer.names):
        raise UserError(f"none of the words ({', '.join(missing)[:60]}) is a class of ScanNet")
    colors = np.zeros(answer.points.shape, np.float32) if answer.colors is None else answer.colors / 127.5 - 1
    upright = (answer.points - answer.points.mean(0).round()) @ answer.rotation.T
    path = folder / "scannet_3d" / "train" / f"{answer.name.removesuffix('_vh_clean_2')}_vh_clean_2.pth"
    path.parent.mkdir(parents=True, exist_ok=True)
    write_points(path, upright.astype(np.float32), colors.astype(np.float32), table[answer.labels])
    notes = [f"not a class of ScanNet, written as unlabelled: {', '.join(missing)}"] if missing else []
    return Exports([path], notes)


def _scannet_ids(names: list[str]) -> tuple[np.ndarray, list[str]]:
    """Return the id of each class in the list of ScanNet that has most of them (0 if none), and the names without one.

    Raises:
        UserError: no class has an id.
    """
    lists = [load_benchmark(name) for name in ("scannet20full/all", "scannet200/B170N30")]
    tables = [dict(zip(each.class_names, each.file_ids_2d, strict=True)) for each in lists]
    found = max(tables, key=lambda table: len(table.keys() & set(names)))
    ids = np.array([found.get(name, 0) for name in names])
    missing = [name for name in names if name not in found]
    if len(missing) == len(names):
        words = ", ".join(names)[:60]
        raise UserError(f"none of the words ({words}) is a class of ScanNet; segment with --classes scannet20")
    return ids, missing
