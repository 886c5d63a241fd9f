"""What is kept of a scan's points so that any words can be asked later: mean features, saved in one file."""

from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from safetensors import SafetensorError, safe_open
from safetensors.numpy import save_file
from torch import Tensor

from xmask3d.errors import UserError
from xmask3d.geometry.voxels import quantise

FORMAT = "xmask3d-features-1"
ROWS_IN_MEMORY = 200_000_000  # numbers of float32 that the sums may have (0.8 GB each)
CHUNK = 65_536  # rows compared at once


@dataclass
class PointFeatures:
    """Features of the places of a scan, and which place each point belongs to.

    Attributes:
        points: n x 3 float32, the scan's own frame. colors: n x 3 uint8.
        row: n int32, place of each point (of its nearest seen neighbour where no view saw it).
        fused: m x D float16, mean of the normalised fused features. clip: m x D float16, mean of the normalised
            CLIP embeddings of the masks on the place, 0 where there was none.
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
        """Write one safetensors file (under a temporary name first)."""
        path.parent.mkdir(parents=True, exist_ok=True)
        arrays = {k: np.ascontiguousarray(v) for k, v in vars(self).items() if isinstance(v, np.ndarray)}
        partial = path.with_name(f".part-{path.name}")
        save_file(arrays, str(partial), metadata={**self.about, "format": FORMAT})
        partial.chmod(0o644)  # the writer leaves it to its owner alone
        partial.replace(path)

    @classmethod
    def load(cls, path: Path) -> "PointFeatures":
        """Read a file of `save`. Raises `UserError` for any other file."""
        if not path.is_file():
            raise UserError(f"{path}: no such file; make it with: xmask3d segment SCAN --save-features {path}")
        try:
            with safe_open(str(path), "numpy") as file:
                about = dict(file.metadata() or {})
                if about.pop("format", None) != FORMAT:
                    raise UserError(f"{path}: no features of a scan (made with --save-features)")
                names = file.keys()  # the file is no mapping
                return cls(**{name: file.get_tensor(name) for name in names}, about=about)
        except (SafetensorError, OSError, TypeError) as error:
            raise UserError(f"{path}: damaged, or no features of a scan ({error})") from error

    def similarities(self, text: Tensor, novel: np.ndarray, device: torch.device | str = "cpu") -> np.ndarray:
        """Cosine of every place with texts, the model's and CLIP's weighed as for labels.

        Args:
            text: T x D embeddings. novel: T bool.

        Returns:
            m x T float32, in [-1, 1].
        """
        text = F.normalize(text.float().to(device), dim=-1)
        ratio = self._ratios(novel, text)
        out = np.empty((len(self.fused), len(text)), np.float32)
        for rows, model, clip, covered in self._cosines(text, device):
            out[rows] = torch.where(covered, ratio * model + (1 - ratio) * clip, model).cpu().numpy()
        return out

    def label(
        self, text: Tensor, novel: np.ndarray, device: torch.device | str = "cpu"
    ) -> tuple[np.ndarray, np.ndarray]:
        """The best text for every place, by the rule of labels applied to mean features.

        Returns:
            m int64 rows of `text`, and m float32 probabilities.
        """
        text = F.normalize(text.float().to(device), dim=-1)
        ratio, temperature = self._ratios(novel, text), float(self.about["temperature"])
        is_novel = torch.from_numpy(novel).to(device)
        gateable = bool(novel.any() and not novel.all())
        labels, sureness = np.empty(len(self.fused), np.int64), np.empty(len(self.fused), np.float32)
        for rows, model, clip, covered in self._cosines(text, device):
            model, clip = (temperature * model).log_softmax(-1), (temperature * clip).log_softmax(-1)
            scores = torch.where(covered, ratio * model + (1 - ratio) * clip, model)
            if gateable:
                is_base = torch.from_numpy(self.base[rows].astype(np.float32) > 0.5).to(device)[:, None]
                scores = scores.masked_fill(is_novel == is_base, torch.finfo(scores.dtype).min)
            best, label = scores.softmax(-1).max(-1)
            labels[rows], sureness[rows] = label.cpu().numpy(), best.cpu().numpy()
        return labels, sureness

    def _ratios(self, novel: np.ndarray, text: Tensor) -> Tensor:
        base_ratio, novel_ratio = float(self.about["base_ratio"]), float(self.about["novel_ratio"])
        return torch.from_numpy(np.where(novel, novel_ratio, base_ratio)).to(text)

    def _cosines(self, text: Tensor, device: torch.device | str):
        for start in range(0, len(self.fused), CHUNK):
            rows = slice(start, min(start + CHUNK, len(self.fused)))
            fused, clip = (torch.from_numpy(a[rows].astype(np.float32)).to(device) for a in (self.fused, self.clip))
            covered = (clip.abs().amax(-1) > 0)[:, None]
            yield rows, F.normalize(fused, dim=-1) @ text.T, F.normalize(clip, dim=-1) @ text.T, covered


class FeatureSums:
    """Sums over views of what points are given, on places that are points, or voxels where there are too many."""

    def __init__(self, points: np.ndarray, width: int) -> None:
        """
        Args:
            points: n x 3 metres.
            width: D.
        """
        self.place = np.arange(len(points), dtype=np.int64)
        count, spacing = len(points), 0.02
        while count * width > ROWS_IN_MEMORY:
            self.place = quantise(np.floor(points.astype(np.float64) / spacing)).point_to_voxel
            count, spacing = int(self.place.max()) + 1, spacing * 1.4
        self.fused = torch.zeros(count, width)
        self.clip = torch.zeros(count, width)
        self.base = torch.zeros(count)
        self.looks = torch.zeros(count, dtype=torch.int32)

    def add(self, point_index: Tensor, fused: Tensor, clip: Tensor | None, base: Tensor) -> None:
        """Add one or more views.

        Args:
            point_index: N int64. fused: N x D. clip: N x D, 0 where no mask is; None for none at all.
            base: N probabilities.
        """
        place = torch.from_numpy(self.place)[point_index.cpu()]
        self.fused.index_add_(0, place, F.normalize(fused.float(), dim=-1).cpu())
        if clip is not None:
            self.clip.index_add_(0, place, F.normalize(clip.float(), dim=-1).cpu())
        self.base.index_add_(0, place, base.float().cpu())
        self.looks.index_add_(0, place, torch.ones(len(place), dtype=torch.int32))

    def means(self) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
        """Rows of seen places (n int32 per point, -1 unseen), then fused, clip (m x D float16), base, looks (m)."""
        seen = self.looks > 0
        new = torch.where(seen, seen.cumsum(0) - 1, -1).numpy().astype(np.int32)
        looks = self.looks[seen].float()
        fused = (self.fused[seen] / looks[:, None]).half().numpy()
        clip = F.normalize(self.clip[seen], dim=-1).half().numpy()
        return new[self.place], fused, clip, (self.base[seen] / looks).half().numpy(), self.looks[seen].numpy()

    def state(self) -> dict[str, np.ndarray]:
        """Everything that `restore` needs."""
        return {name: getattr(self, name).numpy() for name in ("fused", "clip", "base", "looks")}

    def restore(self, state: dict[str, np.ndarray]) -> None:
        """Go on from a state."""
        for name in ("fused", "clip", "base", "looks"):
            getattr(self, name).copy_(torch.from_numpy(np.array(state[name])))
