"""Accumulator of the networks' features for the places of a scan, over views."""

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from xmask3d.geometry.voxels import quantise

MAX_PLACES = 200_000
"""Larger clouds share features by voxel: networks only resolve centimetres, and queries must be answered quickly."""


class FeatureAccumulator:
    """Sums of features over views, per point, or per voxel if there are too many points."""

    def __init__(self, points: np.ndarray, width: int) -> None:
        """Start with empty sums.

        Args:
            points: n x 3 metres.
            width: D, number of features.
        """
        self.place = np.arange(len(points), dtype=np.int64)
        count, spacing = len(points), 0.02
        while count > MAX_PLACES:
            self.place = quantise(np.floor(points.astype(np.float64) / spacing)).point_to_voxel
            count, spacing = int(self.place.max()) + 1, spacing * 1.2
        self.fused = torch.zeros(count, width)
        self.clip = torch.zeros(count, width)
        self.base = torch.zeros(count)
        self.view_count = torch.zeros(count, dtype=torch.int32)

    def add(self, point_index: Tensor, fused: Tensor, clip: Tensor | None, base: Tensor) -> None:
        """Add one or more views.

        Args:
            point_index: N int64, number of each point in the scan.
            fused: N x D.
            clip: N x D, 0 for points without a mask; None if no point has one.
            base: N probabilities of being base.
        """
        place = torch.from_numpy(self.place)[point_index.cpu()]
        self.fused.index_add_(0, place, F.normalize(fused.float(), dim=-1).cpu())
        if clip is not None:
            self.clip.index_add_(0, place, F.normalize(clip.float(), dim=-1).cpu())
        self.base.index_add_(0, place, base.float().cpu())
        self.view_count.index_add_(0, place, torch.ones(len(place), dtype=torch.int32))

    def means(self) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
        """Average over views: return the place of each point (n int32, -1 unseen), and features of the m seen places.

        Returns:
            Place of each point, fused and clip (m x D float16), base and view_count (m).
        """
        seen = self.view_count > 0
        new = torch.where(seen, seen.cumsum(0) - 1, -1).numpy().astype(np.int32)
        view_count, base = self.view_count[seen].numpy(), (self.base[seen] / self.view_count[seen]).half().numpy()
        fused = F.normalize(self.fused[seen], dim=-1).half().numpy()
        clip = F.normalize(self.clip[seen], dim=-1).half().numpy()
        return new[self.place], fused, clip, base, view_count

    def state(self) -> dict[str, np.ndarray]:
        """Return everything that `restore` needs."""
        return {name: getattr(self, name).numpy() for name in ("fused", "clip", "base", "view_count")}

    def restore(self, state: dict[str, np.ndarray]) -> None:
        """Resume from a state."""
        for name in ("fused", "clip", "base", "view_count"):
            getattr(self, name).copy_(torch.from_numpy(np.array(state[name])))
