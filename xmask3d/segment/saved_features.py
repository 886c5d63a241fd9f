"""Mean features of a scan's points, saved in one file for later queries.

This module uses plain NumPy, so that a query on a saved file need not wait for the import of torch.
"""

from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
from safetensors import SafetensorError, safe_open
from safetensors.numpy import save_file

from xmask3d.errors import UserError
from xmask3d.files import atomic_write
from xmask3d.inference.gate_weights import FIXED, GateWeights, clip_alone
from xmask3d.inference.region_labels import LARGEST_ODDS, GateEvidence, calibrated, label_regions, sum_regions
from xmask3d.models.gate import allowed_classes, gate, is_gateable, log_softmax, soft_gate
from xmask3d.seal import UNSEALED, check_seal, sealed
from xmask3d.segment.folder import FORMAT

CHUNK = 65_536  # rows compared at a time
EARLIER = {"looks": "view_count"}  # names of arrays in files of earlier versions


@dataclass
class PointFeatures:
    """Features of the places of a scan, and the place of each point.

    Attributes:
        points: n x 3 float32, in the scan's own frame. colors: n x 3 uint8.
        row: n int32, place of each point; an unseen point has that of its nearest seen neighbour.
        fused: m x D float16, mean of the normalised fused features, of length 1. clip: m x D float16, mean of the
            normalised CLIP embeddings of the masks on the place, of length 1, or 0 where there was none.
        base: m float16, mean probability of being base. view_count: m int32, number of views that saw the place.
        about: strings: scan, model, views, clip (source of the text tower), temperature, base_ratio, novel_ratio,
            rotation, origin, regions ("none", "votes" or "gate"); for a cloud or mesh, its file and units per metre;
            and, joined by newlines, base_names and names of the model's benchmark, and templates of class names.
        part: n int32, part of the cloud of each point; points of a part share a region in every division of the cloud,
            see `xmask3d.geometry.superpoints`. place_part: m int32, part of each place. part_regions: P x (number of
            divisions) int32, regions of each part. All three are empty if regions are not used.
        source: file that the features were read from, for messages.
    """

    points: np.ndarray
    colors: np.ndarray
    row: np.ndarray
    fused: np.ndarray
    clip: np.ndarray
    base: np.ndarray
    view_count: np.ndarray
    about: dict[str, str] = field(default_factory=dict)
    part: np.ndarray = field(default_factory=lambda: np.zeros(0, np.int32))
    place_part: np.ndarray = field(default_factory=lambda: np.zeros(0, np.int32))
    part_regions: np.ndarray = field(default_factory=lambda: np.zeros((0, 0), np.int32))
    source: str = field(default="saved features", kw_only=True)

    def save(self, path: Path) -> None:
        """Write one safetensors file."""
        arrays = {k: np.ascontiguousarray(v) for k, v in vars(self).items() if isinstance(v, np.ndarray)}
        about = {**self.about, "format": FORMAT, **UNSEALED}
        atomic_write(path, sealed(lambda part: save_file(arrays, part, metadata=about)))

    @classmethod
    def load(cls, path: Path) -> "PointFeatures":
        """Read a file of `save`. Raises `UserError` for any other file."""
        if not path.is_file():
            raise UserError(f"{path}: no such file; make it with: xmask3d segment SCAN --save-features {path}")
        check_seal(path)
        try:
            with safe_open(str(path), "numpy") as file:
                about = dict(file.metadata() or {})
                about.pop("seal", None)
                if about.pop("format", None) != FORMAT:
                    raise UserError(f"{path}: no features of a scan (made with --save-features)")
                names = file.keys()  # the content is no mapping
                arrays = {EARLIER.get(name, name): file.get_tensor(name) for name in names}
                return cls(**arrays, about=about, source=str(path))._checked()
        except (SafetensorError, OSError, TypeError, ValueError) as error:
            raise UserError(f"{path}: damaged, or no features of a scan ({error})") from error

    def at(self, places: np.ndarray) -> "PointFeatures":
        """Return the features of some places, without points."""
        fused, clip, base, view_count = (v[places] for v in (self.fused, self.clip, self.base, self.view_count))
        return PointFeatures(self.points[:0], self.colors[:0], self.row[:0], fused, clip, base, view_count, self.about)

    def _checked(self) -> "PointFeatures":
        """Return the features. Raises `ValueError` if arrays do not fit together or contain NaN or infinity."""
        points, places = len(self.points), self.fused.shape
        shapes = {"points": (points, 3), "colors": (points, 3), "clip": places,
                  "base": places[:1], "view_count": places[:1]}  # fmt: skip
        for name, shape in shapes.items():
            if getattr(self, name).shape != shape:
                raise ValueError(f"{name} of {getattr(self, name).shape}, expected {shape}")
        if len(places) != 2 or self.row.dtype.kind not in "iu" or self.colors.dtype != np.uint8:
            raise ValueError("arrays of other kinds")
        indices = [("row", points, places[0])]
        if parts := len(self.part_regions):
            indices += [("part", points, parts), ("place_part", places[0], parts)]
        for name, count, limit in indices:
            index = getattr(self, name)
            if index.shape != (count,) or (count and not 0 <= index.min() <= index.max() < limit):
                raise ValueError(f"{name} is not of {count} numbers below {limit}")
        if not all(np.isfinite(getattr(self, name)).all() for name in ("points", "fused", "clip", "base")):
            raise ValueError("NaN or infinity")
        return self

    @property
    def own_colors(self) -> np.ndarray | None:
        """Colours of the scan, n x 3 uint8; None if all points are of the one grey that stands for no colours."""
        return self.colors if self.colors.size and np.ptp(self.colors) else None

    def fact(self, name: str) -> str:
        """Return an entry of `about`. Raises `UserError` if it is missing."""
        if name not in self.about:
            raise UserError(f"{self.source}: no {name} in them; segment the scan again")
        return self.about[name]

    def numbers(self, name: str, count: int) -> np.ndarray:
        """Return the numbers in an entry of `about`. Raises `UserError` if they are invalid or of another count."""
        try:
            numbers = np.array(self.fact(name).split(), float).reshape(count)
        except ValueError as error:
            raise UserError(f"{self.source}: their {name} is none ({error}); segment the scan again") from error
        if not np.isfinite(numbers).all():
            raise UserError(f"{self.source}: their {name} is not finite; segment the scan again")
        return numbers

    def similarities(self, text: np.ndarray, novel: np.ndarray) -> np.ndarray:
        """Return the cosine of every place with texts; those of model and CLIP are weighted as for labels.

        Args:
            text: T x D embeddings. novel: T bool.

        Returns:
            m x T float32, in [-1, 1].
        """
        out, ratio = np.empty((len(self.fused), len(text)), np.float32), self._ratios(novel)
        for rows, model, clip, covered in self._cosines(text):
            out[rows] = np.where(covered, ratio * model + (1 - ratio) * clip, model)
        return out

    def label(self, text: np.ndarray, novel: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Choose the best text for every point, or for every region if the features have regions.

        Args:
            text: T x D embeddings. novel: T bool.

        Returns:
            n int64 rows of `text`, and n float32 probabilities of being right.
        """
        if len(self.part_regions):
            return self._label_regions(text, novel)
        labels, sureness = np.empty(len(self.fused), np.int64), np.empty(len(self.fused), np.float32)
        temperature = self._calibration
        for rows, scores, base, _, _ in self._scores(text, novel):
            scores = self._gated(scores, base, novel)
            labels[rows] = scores.argmax(-1)
            sureness[rows] = calibrated(np.exp(log_softmax(scores)), temperature)
        return labels[self.row], sureness[self.row]

    def _label_regions(self, text: np.ndarray, novel: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Choose one text for all places of a region; see `label`."""
        gated, parts = self.about.get("regions") == "gate" and bool(is_gateable(novel)), len(self.part_regions)
        votes, evidence = np.zeros((parts, len(text))), np.zeros((parts, 4))
        for rows, scores, base, odds, covered in self._scores(text, novel):
            view_count = self.view_count[rows].astype(np.float64)[:, None]
            # Without the gate both kinds have the same weight; the region decides between them.
            scores = soft_gate(scores, np.full_like(base, 0.5), novel) if gated else self._gated(scores, base, novel)
            votes += sum_regions(self.place_part[rows], view_count * np.exp(log_softmax(scores)), parts)
            if gated:
                found = np.stack([self.base[rows], np.ones_like(base), odds, covered], 1)
                evidence += sum_regions(self.place_part[rows], view_count * found, parts)
        by_clip = self.about.get("gate") == "clip" and gated
        weights = clip_alone(int(novel.sum()), int((~novel).sum())) if by_clip else self.gate_weights
        gate = GateEvidence(evidence, weights) if gated else None
        labels, shares = label_regions(votes, list(self.part_regions.T), novel, gate, self._calibration)
        nearest = self.place_part[self.row]  # label of points in regions that no view shows
        part = np.where(labels[self.part] < 0, nearest, self.part)
        return labels[part], shares[part].astype(np.float32)

    def _gated(self, scores: np.ndarray, base: np.ndarray, novel: np.ndarray) -> np.ndarray:
        """Gate scores as for views (`inference.class_scores`), except that a place does not share a mask."""
        gating = self.about.get("gate", "hard")
        if gating == "none":
            return scores
        if gating == "hard":
            return gate(scores, allowed_classes(base > 0.5, novel))
        return soft_gate(scores, base, novel)

    def _scores(
        self, text: np.ndarray, novel: np.ndarray
    ) -> Iterator[tuple[slice, np.ndarray, np.ndarray, np.ndarray, np.ndarray]]:
        """Yield in parts: rows, log scores before the gate, base probability, CLIP's log odds, and rows with odds."""
        gateable, by_clip = bool(is_gateable(novel)), self.about.get("gate") == "clip"
        ratio, temperature = self._ratios(novel), np.float32(self.numbers("temperature", 1)[0])
        for rows, model, clip, covered in self._cosines(text):
            model, clip = log_softmax(temperature * model), log_softmax(temperature * clip)
            scores = np.where(covered, ratio * model + (1 - ratio) * clip, model)
            odds = np.where(covered[:, 0], _log_odds(clip, novel), 0) if gateable else np.zeros(len(clip), np.float32)
            base = self.base[rows].astype(np.float32)
            if by_clip and gateable:
                alone = clip_alone(int(novel.sum()), int((~novel).sum()))
                base = alone.probability(np.stack([odds, odds], 1)).astype(np.float32)
            yield rows, scores, base, odds, covered[:, 0]

    @property
    def gate_weights(self) -> GateWeights:
        """Weights of head and CLIP in the gate of regions."""
        return GateWeights.read(self.about.get("gate_weights", "").split()) or FIXED

    @property
    def _calibration(self) -> float:
        name = "confidence_temperature"
        return max(float(self.numbers(name, 1)[0]), 1e-3) if name in self.about else 1.0

    def _ratios(self, novel: np.ndarray) -> np.ndarray:
        base_ratio, novel_ratio = (self.numbers(name, 1)[0] for name in ("base_ratio", "novel_ratio"))
        return np.where(novel, novel_ratio, base_ratio).astype(np.float32)

    def _cosines(self, text: np.ndarray) -> Iterator[tuple[slice, np.ndarray, np.ndarray, np.ndarray]]:
        """Yield rows in parts: cosines with the model's and CLIP's features, and True for rows with CLIP's features."""
        text = text.astype(np.float32)
        text = (text / np.maximum(np.linalg.norm(text, axis=1, keepdims=True), 1e-12)).T
        for start in range(0, len(self.fused), CHUNK):
            rows = slice(start, min(start + CHUNK, len(self.fused)))
            fused, clip = self.fused[rows].astype(np.float32), self.clip[rows].astype(np.float32)
            covered = np.abs(clip).max(-1, keepdims=True) > 0
            yield rows, fused @ text, clip @ text, covered


def _log_odds(log_probabilities: np.ndarray, novel: np.ndarray) -> np.ndarray:
    """Return log odds of novel against base texts, N, of N x T log probabilities."""
    tiny = np.finfo(np.float32).tiny
    shares = [np.log(np.maximum(np.exp(log_probabilities[:, kind]).sum(1), tiny)) for kind in (novel, ~novel)]
    return (shares[0] - shares[1]).clip(-LARGEST_ODDS, LARGEST_ODDS)
