"""Corrections of labels by clicks, such as "this is a workbench", for the clicked place and similar ones.

Every click stores the features of its place, the wrong label and the right one. Places with the same wrong label take
the right one if their features are similar to those of the click; near the click less similarity is enough. All other
labels stay as they are. A click on a place that is already right protects similar places from other clicks.
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
from xmask3d.guarded import parse_json
from xmask3d.seal import UNSEALED, check_seal, sealed
from xmask3d.segment.result import SegmentationResult
from xmask3d.segment.saved_features import PointFeatures

CORRECTIONS = "corrections.safetensors"
FORMAT = "xmask3d-corrections-1"
ALIKE = 0.95  # smallest cosine of features for a place to be similar to a clicked one
NEAR = 0.3  # at the clicked place itself, the cosine may be lower by this much
REACH = 0.5  # metres over which this allowance decreases
UNLABELLED = ""  # stands for the label of unlabelled places
SAME = 1e-3  # largest distance, in metres, of two clicks on the same place
CHUNK = 16_384  # places compared at a time


@dataclass
class Corrections:
    """Clicks on one or more scans.

    Attributes:
        features: J x D float16, features of the places.
        points: J x 3 float64 metres, in the scan's own frame.
        before, after: J names each: the label before the click, and the right one.
        scans: J names of scans.
        model: model that made the features; clicks on the features of another model are of no use.
        weights: digest of the model's weights; empty in files of earlier versions.
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
        """Return an empty list of corrections for a scan's features."""
        width = features.fused.shape[1] + features.clip.shape[1]
        model, weights = (features.about.get(name, "") for name in ("model", "weights"))
        return cls(np.zeros((0, width), np.float16), np.zeros((0, 3)), model=model, weights=weights)

    def __len__(self) -> int:
        return len(self.after)

    def add(self, features: PointFeatures, point: int, before: str, after: str) -> None:
        """Add a click on a point of a scan; it replaces an earlier click on the same place."""
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
        """Undo a click, by default the last one."""
        kept = np.delete(np.arange(len(self)), number)
        self.features, self.points = self.features[kept], self.points[kept]
        for names in (self.before, self.after, self.scans):
            del names[number]

    def joined(self, other: "Corrections") -> "Corrections":
        """Return these and other corrections. Raises `UserError` if they belong to different models."""
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
        """Raise `UserError` if the clicks are on the features of another model.

        Args:
            model, weights: model of the scan to be corrected, and digest of its weights ("" if unknown).
            width: number of features of a place.
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
            n class ids, the names including those added by clicks, and n bool, true for points that a click decided.
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
        """Return the most similar click with the same label for each point, and the similarity."""
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
        """Return a result with corrected labels, whose confidence is 1."""
        labels, names, moved = self.apply(result.features, result.labels, result.names)
        confidence = np.where(moved, np.float32(1), result.confidence)
        about = {**result.about, "corrected": int(moved.sum())}
        return replace(result, labels=labels, names=names, confidence=confidence, about=about)

    def save(self, path: Path) -> None:
        """Write the corrections to a file."""
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
                said = parse_json(about["clicks"], path)
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
    """Return the features, of length 1, by which places are compared.

    A place that no mask covers, like all places of a scan without pictures, uses the model's features for CLIP's too.
    """
    fused, clip = features.fused[rows], features.clip[rows]
    both = np.concatenate([fused, np.where(clip.any(1, keepdims=True), clip, fused)], 1).astype(np.float32)
    return both / np.float32(np.sqrt(2))


def _origin(features: PointFeatures) -> np.ndarray:
    return features.numbers("origin", 3) if "origin" in features.about else np.zeros(3)
