"""Corrections of labels by clicks: "this is a workbench", for the place that was clicked and for those alike.

Every click keeps the features of its place, the label that was wrong and the right one. Places that had the same wrong
label take the right one where their features are like those of a click, and near it already where they are less alike.
All other labels stay as they are. A click on a place that is right protects what is like it.
"""

import json
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

import numpy as np
from safetensors import SafetensorError, safe_open
from safetensors.numpy import save_file

from xmask3d.errors import UserError
from xmask3d.files import atomic_write
from xmask3d.seal import UNSEALED, check_seal, sealed
from xmask3d.segment.result import SegmentationResult
from xmask3d.segment.saved_features import PointFeatures

CORRECTIONS = "corrections.safetensors"
FORMAT = "xmask3d-corrections-1"
ALIKE = 0.95  # cosine of features from which a place is like one that was clicked
NEAR = 0.3  # by how much less alike it may be where it is at the place that was clicked
REACH = 0.5  # metres over which that falls off
UNLABELLED = ""  # name of unlabelled places
SAME = 1e-3  # metres up to which two clicks are on one place
CHUNK = 16_384  # places compared at once


@dataclass
class Corrections:
    """Clicks on one or more scans.

    Attributes:
        features: J x D float16, features of the places.
        points: J x 3 float64 metres, in the scan's own frame.
        before, after: J names each: the label there was, and the right one.
        scans: J names of scans.
        model: model that made the features; clicks on those of another say nothing.
        weights: digest of its weights; empty in files of earlier versions.
    """

    features: np.ndarray
    points: np.ndarray
    before: list[str] = field(default_factory=list)
    after: list[str] = field(default_factory=list)
    scans: list[str] = field(default_factory=list)
    model: str = ""
    weights: str = ""

    @classmethod
    def none(cls, features: PointFeatures) -> "Corrections":
        """Return no corrections, for a scan's features."""
        width = features.fused.shape[1] + features.clip.shape[1]
        model, weights = (features.about.get(name, "") for name in ("model", "weights"))
        return cls(np.zeros((0, width), np.float16), np.zeros((0, 3)), model=model, weights=weights)

    def __len__(self) -> int:
        return len(self.after)

    def add(self, features: PointFeatures, point: int, before: str, after: str) -> None:
        """Add a click on a point of a scan; one on the same place takes the place of an earlier one."""
        vector = _vectors(features, features.row[point : point + 1])
        place = features.points[point].astype(np.float64) + _origin(features)
        scan = features.about.get("scan", "")
        for number in range(len(self) - 1, -1, -1):
            if self.scans[number] == scan and np.linalg.norm(self.points[number] - place) < SAME:
                self.remove(number)
        self.features = np.concatenate([self.features, vector.astype(np.float16)])
        self.points = np.concatenate([self.points, place[None]])
        self.before.append(before)
        self.after.append(after)
        self.scans.append(scan)

    def remove(self, number: int = -1) -> None:
        """Take back a click, the last by default."""
        kept = np.delete(np.arange(len(self)), number)
        self.features, self.points = self.features[kept], self.points[kept]
        for names in (self.before, self.after, self.scans):
            del names[number]

    def joined(self, other: "Corrections") -> "Corrections":
        """Return these and others. Raises `UserError` where they are of different models."""
        kinds = [(each.model, each.weights, each.features.shape[1]) for each in (self, other)]
        if len(self) and len(other) and kinds[0] != kinds[1]:
            raise UserError(f"corrections of different models ({self.model}; {other.model}) do not go together")
        first = self if len(self) else other
        return Corrections(
            np.concatenate([self.features, other.features]) if len(self) and len(other) else first.features,
            np.concatenate([self.points, other.points]),
            [*self.before, *other.before], [*self.after, *other.after], [*self.scans, *other.scans], first.model,
            first.weights,
        )  # fmt: skip

    def check_model(self, model: str, weights: str, width: int) -> None:
        """Raise `UserError` where clicks are on the features of another model.

        Args:
            model, weights: the model of the scan that is to be corrected, and digest of its weights ("" where unknown).
            width: numbers of the features of a place.
        """
        other = self.weights and weights and self.weights != weights
        if len(self) and (other or self.features.shape[1] != width):
            raise UserError(
                f"these corrections are of another model ({self.model}), whose features mean other things than those "
                f"of {model}; name that one with --model, or move the file of corrections away"
            )

    def apply(
        self, features: PointFeatures, labels: np.ndarray, names: Sequence[str]
    ) -> tuple[np.ndarray, list[str], np.ndarray]:
        """Correct labels.

        Args:
            features: features of the scan.
            labels: n class ids before any correction, -1 unlabelled. names: K class names.

        Returns:
            n class ids, the names with those that clicks added, and n bool: points that a click decided.
        """
        if not len(self):
            return labels, list(names), np.zeros(len(labels), bool)
        width = features.fused.shape[1] + features.clip.shape[1]
        self.check_model(features.about.get("model", ""), features.about.get("weights", ""), width)
        every = [*names, *dict.fromkeys(name for name in self.after if name not in names and name != UNLABELLED)]
        number = {name: row for row, name in enumerate(every)} | {UNLABELLED: -1}
        before = np.array([number.get(name, -2) for name in self.before])
        after = np.array([number[name] for name in self.after])
        best, likeness = self._most_alike(features, labels, before)
        moved = likeness > ALIKE
        return np.where(moved, after[best], labels), every, moved

    def _most_alike(
        self, features: PointFeatures, labels: np.ndarray, before: np.ndarray
    ) -> tuple[np.ndarray, np.ndarray]:
        """Return the click that each point is most like of those with its label, and how much."""
        exemplars = self.features.astype(np.float32)
        here = np.array([scan == features.about.get("scan", "") for scan in self.scans])
        clicked = (self.points - _origin(features)).astype(np.float32)
        best, likeness = np.zeros(len(labels), np.int64), np.full(len(labels), -1, np.float32)
        asked = np.flatnonzero(np.isin(labels, before))  # the others stay as they are
        for start in range(0, len(asked), CHUNK):
            rows = asked[start : start + CHUNK]
            alike = _vectors(features, features.row[rows]) @ exemplars.T
            away = ((features.points[rows, None] - clicked[None]) ** 2).sum(-1)
            alike += np.where(here, NEAR * np.exp(-away / (2 * REACH**2)), 0)
            alike[labels[rows, None] != before] = -1
            best[rows] = alike.argmax(1)
            likeness[rows] = alike.max(1)
        return best, likeness

    def correct(self, result: SegmentationResult) -> SegmentationResult:
        """Return a result with corrected labels, of which it is sure."""
        labels, names, moved = self.apply(result.features, result.labels, result.names)
        confidence = np.where(moved, np.float32(1), result.confidence)
        about = {**result.about, "corrected": int(moved.sum())}
        return replace(result, labels=labels, names=names, confidence=confidence, about=about)

    def save(self, path: Path) -> None:
        """Write a file."""
        said = {"before": self.before, "after": self.after, "scans": self.scans}
        about = {"format": FORMAT, "model": self.model, "weights": self.weights, "clicks": json.dumps(said), **UNSEALED}
        arrays = {"features": np.ascontiguousarray(self.features), "points": np.ascontiguousarray(self.points)}
        atomic_write(path, sealed(lambda part: save_file(arrays, part, metadata=about)))

    @classmethod
    def load(cls, path: Path) -> "Corrections":
        """Read a file of `save`. Raises `UserError` for any other file."""
        if not path.is_file():
            raise UserError(f"{path}: no such file; xmask3d view RESULT writes {CORRECTIONS} into the result's folder")
        check_seal(path)
        try:
            with safe_open(str(path), "numpy") as file:
                about = dict(file.metadata() or {})
                if about.get("format") != FORMAT:
                    raise UserError(f"{path}: no corrections of labels")
                said = json.loads(about["clicks"])
                before, after, scans = ([str(name) for name in said[key]] for key in ("before", "after", "scans"))
                vectors, points = file.get_tensor("features"), file.get_tensor("points")
                made = cls(vectors, points, before, after, scans, about["model"], about.get("weights", ""))
        except (SafetensorError, OSError, ValueError, KeyError, TypeError) as error:
            raise UserError(f"{path}: damaged, or no corrections of labels ({error})") from error
        lengths = {len(made.features), len(made.points), len(made.before), len(made.after), len(made.scans)}
        if len(lengths) != 1 or made.points.shape[1:] != (3,) or made.features.ndim != 2:
            raise UserError(f"{path}: damaged, its parts are of {sorted(lengths)} clicks")
        return made


def _vectors(features: PointFeatures, rows: np.ndarray) -> np.ndarray:
    """Return the features of places by which they are compared, of length 1.

    A place that no mask covers, as all of a scan without pictures, takes the model's features for CLIP's too.
    """
    fused, clip = features.fused[rows], features.clip[rows]
    both = np.concatenate([fused, np.where(clip.any(1, keepdims=True), clip, fused)], 1).astype(np.float32)
    return both / np.float32(np.sqrt(2))


def _origin(features: PointFeatures) -> np.ndarray:
    return features.numbers("origin", 3) if "origin" in features.about else np.zeros(3)
