"""Order of views in which the first ones already show the complete scan, and a stop once labels hardly change."""

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from xmask3d.data.datasets import SceneViews
from xmask3d.scan.coverage import cells_of, rank_views
from xmask3d.segment.feature_accumulator import FeatureAccumulator

ROUNDS = 10  # number of rounds for all views; labels are compared after each round


def by_worth(views: SceneViews) -> list[int]:
    """Order the views of a scan by how much each adds to those before it; useless ones come last."""

    def seen(row: int) -> np.ndarray:
        sample = views[row]
        return np.zeros(0, np.int64) if sample is None else cells_of(sample.points.numpy())

    ranked = rank_views(len(views), seen, len(views)).tolist()
    return [*ranked, *sorted(set(range(len(views))) - set(ranked))]


class Settling:
    """Test whether the labels of a scan's places, by the classes of the model's benchmark, still change.

    These classes are used whatever the query, so that features do not depend on the query that came first.
    """

    def __init__(self, features: FeatureAccumulator, text: Tensor, share: float) -> None:
        """Store the labels at the beginning, or at the point where work resumes.

        Args:
            features: features of the places so far.
            text: K x D embeddings.
            share: share of the places; if a round changes no more than this, the labels have settled.
        """
        self._text, self._share = F.normalize(text.float().cpu(), dim=-1), share
        self._labels = self._label(features)

    def has_settled(self, features: FeatureAccumulator) -> bool:
        """Return True if few labels changed since the previous call; places seen for the first time are changes."""
        before, self._labels = self._labels, self._label(features)
        return int((self._labels != before).sum()) <= self._share * len(before)

    def _label(self, features: FeatureAccumulator) -> Tensor:
        return torch.where(features.view_count > 0, (features.fused @ self._text.T).argmax(-1), -1)
