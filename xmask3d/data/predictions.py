"""Predictions of any method in a folder: ScanNet's text format, npz or labelled PLY, a file or index per scene."""

import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

import numpy as np

from xmask3d.data.id_files import parse_ids, parse_mask, read_text
from xmask3d.data.scene import SceneReader
from xmask3d.errors import UserError
from xmask3d.files import sha256_of
from xmask3d.geometry.nearest import nearest
from xmask3d.guarded import read_arrays
from xmask3d.metrics.predictions import ScenePrediction, SceneTruth
from xmask3d.splits import Benchmark

Ids = Literal["scannet", "points", "index"]
"""Kinds of label ids: those of ScanNet's label pictures and result files (NYU40, or raw ids for ScanNet200), those of
the processed 3D files, or indices into the class list."""

SUFFIXES = {".txt": "scannet", ".npz": "index", ".ply": "index"}
"""Formats, and the kind of ids that each has by default."""

ARRAYS = ("labels", "points", "masks", "classes", "confidences")
LARGEST_MASKS = 1 << 33  # masks times points of a scene
SAME_PLACE = 0.02  # metres between points of prediction and truth that count as the same
FAR = 0.5  # if half of the nearest points are farther, in metres, the frames differ


@dataclass
class PredictionFolder:
    """Predictions, one file per scene: `<scene>.txt`, `.npz` or `.ply`, also with `_vh_clean_2` in the name.

    A text file has one label id per line, or is an index of instances, whose lines give the path of a mask (one 0 or 1
    per point), a class id and a confidence. If there are both, they are in sub-folders `semantic` and `instance`. An
    npz holds `labels` (n), or `masks` (M x n), `classes` and `confidences` (M), or both, and may hold `points` (n x 3).
    A PLY holds the vertex property `label`.

    Attributes:
        folder: folder of the files.
        benchmark: class list.
        ids: kind of the label ids; None for the default of the format.
        digests: SHA-256 of every file that was read, under its path in the folder.
        without_class: number of points whose id belongs to no class of the list.
    """

    folder: Path
    benchmark: Benchmark
    ids: Ids | None = None
    digests: dict[str, str] = field(default_factory=dict)
    without_class: int = 0

    def __post_init__(self) -> None:
        if not self.folder.is_dir():
            raise UserError(f"{self.folder}: no such folder of predictions")
        parts = [self.folder / name for name in ("semantic", "instance") if (self.folder / name).is_dir()]
        self._files: dict[str, list[Path]] = {}
        for part in parts or [self.folder]:
            for path in sorted(part.iterdir()):
                if path.suffix in SUFFIXES and path.is_file() and not path.name.startswith("."):
                    self._files.setdefault(path.stem.removesuffix("_vh_clean_2"), []).append(path)

    def check_scenes(self, scenes: list[str]) -> list[str]:
        """Return the names of files that belong to no scene. Raises `UserError` if a scene has no file."""
        missing = [name for name in scenes if name not in self._files]
        if missing:
            raise UserError(
                f"{self.folder}: no prediction for {len(missing)} of {len(scenes)} scenes, such as {missing[0]} "
                f"(.txt, .npz or .ply); score a part with --scenes"
            )
        return sorted(set(self._files) - set(scenes))

    def read(self, scene: str, points: np.ndarray) -> ScenePrediction:
        """Read the predictions for the points of a scene.

        Args:
            points: n x 3 metres, points of the ground truth.

        Raises:
            UserError: a file is damaged, points cannot be matched, or ids belong to no class.
        """
        found: dict[str, np.ndarray | None] = {}
        sources = self._files[scene]
        for path in sources:
            content = self._read_file(path)
            twice = found.keys() & content.keys() - {"points"}
            if twice:
                raise UserError(f"{path}: a second file with {min(twice)} of {scene}; keep one")
            found |= content
        source = sources[-1]
        labels, masks = found.get("labels"), found.get("masks")
        if labels is None and masks is None:
            raise UserError(f"{source}: holds neither labels nor masks")
        if masks is not None and not len(masks):
            masks = np.zeros((0, len(points)), bool)
        count = len(labels) if labels is not None else masks.shape[1] if masks is not None else 0
        rows = match_points(source, count, found.get("points"), points)
        if rows is not None:
            labels = None if labels is None else labels[rows]
            masks = None if masks is None else masks[:, rows]
        matching = "index" if rows is None else "nearest point"
        return ScenePrediction(str(source), matching, labels, masks, found.get("classes"), found.get("confidences"))

    def _read_file(self, path: Path) -> dict[str, np.ndarray | None]:
        self._note(path)
        readers: dict[str, Callable[[Path], dict[str, np.ndarray | None]]] = {
            ".txt": self._read_text, ".npz": self._read_npz, ".ply": self._read_ply,
        }  # fmt: skip
        return readers[path.suffix](path)

    def _note(self, path: Path) -> None:
        self.digests[path.relative_to(self.folder).as_posix()] = sha256_of(path)

    def _read_text(self, path: Path) -> dict[str, np.ndarray | None]:
        content = read_text(path)
        first = next((line for line in content.splitlines() if line.strip()), b"")
        if len(first.split()) != 1:  # an empty file is an index without instances
            return self._read_index(path, content)
        return {"labels": self._labels(path, parse_ids(path, content))}

    def _read_index(self, path: Path, content: bytes) -> dict[str, np.ndarray | None]:
        """Read ScanNet's format of instances: path of a mask, class id and confidence, one prediction per line."""
        root = self.folder.resolve()
        masks: list[np.ndarray] = []
        classes, confidences = [], []
        for number, line in enumerate(content.decode("utf-8", "replace").splitlines(), 1):
            if not line.strip():
                continue
            words = line.split()
            try:
                name, class_id, confidence = words[0], int(words[1]), float(words[2])
                sound = len(words) == 3 and "\0" not in name and math.isfinite(confidence) and abs(class_id) < 1 << 31
            except (ValueError, IndexError):
                sound = False
            if not sound:
                raise UserError(f"{path}, line {number}: expected the path of a mask, a class id and a confidence")
            mask_path = (path.parent / name).resolve()
            if not mask_path.is_relative_to(root):
                raise UserError(f"{path}, line {number}: {name} lies outside {self.folder}")
            if not mask_path.is_file():
                raise UserError(f"{path}, line {number}: {name} is missing")
            mask = parse_mask(mask_path, read_text(mask_path))
            if masks and len(mask) != len(masks[0]):
                raise UserError(f"{mask_path}: {len(mask)} points, but masks before have {len(masks[0])}")
            if len(mask) * (len(masks) + 1) > LARGEST_MASKS:
                raise UserError(f"{path}, line {number}: more masks than one scene can have")
            self._note(self.folder / mask_path.relative_to(root))
            masks.append(mask)
            classes.append(class_id)
            confidences.append(confidence)
        stacked = np.stack(masks) if masks else np.zeros((0, 0), bool)
        ids = self._class_ids(path, np.array(classes, np.int64))
        return {"masks": stacked, "classes": ids, "confidences": np.array(confidences)}

    def _read_npz(self, path: Path) -> dict[str, np.ndarray | None]:
        arrays = read_arrays(path, names=ARRAYS)
        found: dict[str, np.ndarray | None] = {"points": arrays.get("points")}
        if "labels" in arrays:
            found["labels"] = self._labels(path, _whole(path, "labels", arrays["labels"]))
        if "masks" in arrays:
            masks, classes, confidences = (arrays.get(name) for name in ("masks", "classes", "confidences"))
            if masks is None or masks.ndim != 2 or classes is None or confidences is None:
                raise UserError(f"{path}: masks need M x n values, and M classes and confidences beside them")
            if not classes.shape == confidences.shape == (len(masks),) or not np.isfinite(confidences).all():
                raise UserError(f"{path}: {len(masks)} masks need as many classes and finite confidences")
            ids = self._class_ids(path, _whole(path, "classes", classes))
            found |= {"masks": masks != 0, "classes": ids, "confidences": confidences.astype(np.float64)}
        if "labels" in found and "masks" in found and len(arrays["labels"]) != arrays["masks"].shape[1]:
            raise UserError(f"{path}: labels and masks are of different numbers of points")
        return found

    def _read_ply(self, path: Path) -> dict[str, np.ndarray | None]:
        from xmask3d.geometry.ply import read_elements

        try:
            vertices = read_elements(path).get("vertex", np.zeros(0))
        except (ValueError, OSError) as error:
            raise UserError(f"{path}: damaged, or not a PLY ({error})") from error
        names = vertices.dtype.names or ()
        if not {"x", "y", "z", "label"} <= set(names):
            raise UserError(f"{path}: its vertices need the properties x, y, z and label; they have {', '.join(names)}")
        labels = self._labels(path, _whole(path, "label", vertices["label"]))
        return {"labels": labels, "points": np.stack([vertices[axis] for axis in "xyz"], 1)}

    def _labels(self, path: Path, ids: np.ndarray) -> np.ndarray:
        """Map label ids to class ids; -1 for an id without a class."""
        kind, classes = self.ids or SUFFIXES[path.suffix], self.benchmark.num_classes
        table = {"scannet": self.benchmark.classes_of_pixels, "points": self.benchmark.classes_of_points}
        labels = table[kind](ids) if kind in table else np.where((ids >= 0) & (ids < classes), ids, classes)
        if len(labels) and (labels == classes).all():
            raise UserError(f"{path}: none of its ids is a class of {self.benchmark.name} as '{kind}' ids; try --ids")
        self.without_class += int((labels == classes).sum())
        return np.where(labels == classes, -1, labels)

    def _class_ids(self, path: Path, ids: np.ndarray) -> np.ndarray:
        """Return class ids of instances as in ScanNet's result files; -1 for ids without a class."""
        kind, own = self.ids or SUFFIXES[path.suffix], np.array((*self.benchmark.file_ids_2d, -1))
        if kind == "scannet":
            return ids
        if kind == "points":
            return own[self.benchmark.classes_of_points(ids)]
        return own[np.where((ids >= 0) & (ids < len(own) - 1), ids, -1)]


def match_points(source: Path, count: int, predicted: np.ndarray | None, points: np.ndarray) -> np.ndarray | None:
    """Find the predicted point for each point of the truth: the same row, or else the nearest point.

    Args:
        source: file of the prediction, for messages.
        count: number of points in the prediction.
        predicted: positions of these points, count x 3, or None if the file has none.
        points: n x 3, points of the ground truth.

    Returns:
        None if both have the same points in the same order; otherwise n rows of the prediction.

    Raises:
        UserError: the numbers of points differ and there are no positions to match, or positions are in another frame.
    """
    if predicted is not None and (predicted.shape != (count, 3) or not np.isfinite(predicted).all()):
        raise UserError(f"{source}: its points are {predicted.shape}, expected {count} x 3 finite numbers")
    if predicted is None:
        if count != len(points):
            raise UserError(
                f"{source}: {count} points, but the scene has {len(points)}; write the points' places too (npz, PLY)"
            )
        return None
    if count == len(points) and np.abs(predicted - points).max(initial=0) < SAME_PLACE:
        return None
    if not count:
        raise UserError(f"{source}: has no points")
    rows = nearest(predicted, points)
    if np.median(np.linalg.norm(predicted[rows] - points, axis=1)) > FAR:
        raise UserError(f"{source}: its points are far from those of the scene; are they in another frame or unit?")
    return rows


def pair_scenes(
    reader: SceneReader, folder: PredictionFolder, scenes: list[str], objects: Path | None = None
) -> Iterator[tuple[SceneTruth, ScenePrediction]]:
    """Yield truth and prediction of each scene, read one at a time.

    Args:
        objects: folder of `<scene>.txt` with the object of every point: class id * 1000 + number, one per line.

    Raises:
        UserError: a scene has no truth, or files cannot be read.
    """
    for name in scenes:
        scene = reader.read_scene(name)
        if scene.labels is None:
            raise UserError(f"scene {name} has no labels to compare with; leave it out with --scenes")
        known = None
        if objects is not None:
            path = objects / f"{name}.txt"
            known = parse_ids(path, read_text(path))
            if len(known) != len(scene.points):
                raise UserError(f"{path}: {len(known)} object ids for {len(scene.points)} points")
        yield SceneTruth(name, np.asarray(scene.labels), known), folder.read(name, np.asarray(scene.points))


def _whole(path: Path, name: str, values: np.ndarray) -> np.ndarray:
    if values.ndim != 1 or not (np.isfinite(values).all() and (values == np.rint(values)).all()):
        raise UserError(f"{path}: {name} must be a list of whole numbers")
    return values.astype(np.int64)
