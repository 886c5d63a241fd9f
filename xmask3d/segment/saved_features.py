"""Mean features of a scan's points, saved in one file, so that any words can be queried later.

Plain NumPy: a question to a saved file should not wait for torch to be imported.
"""

from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
from safetensors import SafetensorError, safe_open
from safetensors.numpy import save_file

from xmask3d.errors import UserError
from xmask3d.files import atomic_write
from xmask3d.models.gate import allowed_classes, gate, log_softmax, soft_gate
from xmask3d.seal import UNSEALED, check_seal, sealed

FORMAT = "xmask3d-features-1"
CHUNK = 65_536  # rows compared at once


@dataclass
class PointFeatures:
    """Features of the places of a scan, and the place of each point.

    Attributes:
        points: n x 3 float32, the scan's own frame. colors: n x 3 uint8.
        row: n int32, place of each point (of its nearest seen neighbour where no view saw it).
        fused: m x D float16, mean of the normalised fused features, of length 1. clip: m x D float16, mean of the
            normalised CLIP embeddings of the masks on the place, of length 1, or 0 where there was none.
        base: m float16, mean probability of being of a base class. looks: m int32, views that saw it.
        about: strings: scan, model, views, clip (source of the text tower), temperature, base_ratio, novel_ratio,
            rotation, origin, base_names and names of the model's benchmark joined by newlines.
    """

    points: np.ndarray
    colors: np.ndarray
    row: np.ndarray
    fused: np.ndarray
    clip: np.ndarray
    base: np.ndarray
    looks: np.ndarray
    about: dict[str, str] = field(default_factory=dict)

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
                names = file.keys()  # the file is no mapping
                return cls(**{name: file.get_tensor(name) for name in names}, about=about)
        except (SafetensorError, OSError, TypeError) as error:
            raise UserError(f"{path}: damaged, or no features of a scan ({error})") from error

    def similarities(self, text: np.ndarray, novel: np.ndarray) -> np.ndarray:
        """Return the cosine of every place with texts, the model's and CLIP's weighted as for labels.

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
        """Choose the best text for every place, by the rule of labels applied to mean features.

        Args:
            text: T x D embeddings. novel: T bool.

        Returns:
            m int64 rows of `text`, and m float32 probabilities.
        """
        ratio, temperature = self._ratios(novel), np.float32(self.about["temperature"])
        labels, sureness = np.empty(len(self.fused), np.int64), np.empty(len(self.fused), np.float32)
        for rows, model, clip, covered in self._cosines(text):
            model, clip = log_softmax(temperature * model), log_softmax(temperature * clip)
            scores = np.where(covered, ratio * model + (1 - ratio) * clip, model)
            scores = self._gated(scores, self.base[rows].astype(np.float32), novel)
            labels[rows] = scores.argmax(-1)
            sureness[rows] = np.exp(log_softmax(scores).max(-1))
        return labels, sureness

    def _gated(self, scores: np.ndarray, base: np.ndarray, novel: np.ndarray) -> np.ndarray:
        """Gate scores as the scan's labels were (`inference.class_scores`); a place has no mask to share with."""
        gating = self.about.get("gate", "hard")
        if gating == "none":
            return scores
        if gating == "hard":
            return gate(scores, allowed_classes(base > 0.5, novel))
        return soft_gate(scores, base, novel)

    def _ratios(self, novel: np.ndarray) -> np.ndarray:
        base_ratio, novel_ratio = float(self.about["base_ratio"]), float(self.about["novel_ratio"])
        return np.where(novel, novel_ratio, base_ratio).astype(np.float32)

    def _cosines(self, text: np.ndarray) -> Iterator[tuple[slice, np.ndarray, np.ndarray, np.ndarray]]:
        """Yield rows in parts: cosines with the model's and CLIP's features, and whether CLIP's is present."""
        text = text.astype(np.float32)
        text = (text / np.maximum(np.linalg.norm(text, axis=1, keepdims=True), 1e-12)).T
        for start in range(0, len(self.fused), CHUNK):
            rows = slice(start, min(start + CHUNK, len(self.fused)))
            fused, clip = self.fused[rows].astype(np.float32), self.clip[rows].astype(np.float32)
            covered = np.abs(clip).max(-1, keepdims=True) > 0
            yield rows, fused @ text, clip @ text, covered
