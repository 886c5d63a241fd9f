"""Views in an order of which any beginning shows the whole scan, and an end once further ones change few labels."""

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from xmask3d.data.datasets import SceneViews
from xmask3d.scan.coverage import cells_of, rank_views
from xmask3d.segment.feature_accumulator import FeatureAccumulator

ROUNDS = 10  # in which all views are looked at; labels are compared after each


def by_worth(views: SceneViews) -> list[int]:
    """Order the views of a scan by what each sees that those before it do not; those of no use are the last."""

    def seen(row: int) -> np.ndarray:
        sample = views[row]
        return np.zeros(0, np.int64) if sample is None else cells_of(sample.points.numpy())

    ranked = rank_views(len(views), seen, len(views)).tolist()
    return [*ranked, *sorted(set(range(len(views))) - set(ranked))]


class Settling:
    """Watch over the labels of a scan's places by the classes of the model's benchmark.

    Those classes stand for any words, so that features do not depend on which words were asked first.
    """

    def __init__(self, features: FeatureAccumulator, text: Tensor, share: float) -> None:
        """Note the labels at the beginning, or where stopped work goes on.

        Args:
            features: features of the places so far.
            text: K x D embeddings.
            share: share of the places up to which changes of a round are too few to go on.
        """
        self._text, self._share = F.normalize(text.float().cpu(), dim=-1), share
        self._labels = self._label(features)

    def has_settled(self, features: FeatureAccumulator) -> bool:
        """Return True if few labels differ from those at the call before; a place that is new to sight counts too."""
        before, self._labels = self._labels, self._label(features)
        return int((self._labels != before).sum()) <= self._share * len(before)

    def _label(self, features: FeatureAccumulator) -> Tensor:
        return torch.where(features.view_count > 0, (features.fused @ self._text.T).argmax(-1), -1)
