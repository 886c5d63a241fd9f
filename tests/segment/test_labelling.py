"""Labelling: what it refuses to begin with. Its results are compared in `tests/segment/test_segmenter.py`."""

from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch

from xmask3d.errors import UserError
from xmask3d.segment.feature_accumulator import FeatureAccumulator
from xmask3d.segment.labelling import ScanLabeller
from xmask3d.segment.settled import Settling, by_worth


@pytest.mark.parametrize("batch_size", [0, -1])
def test_batches_of_no_view_are_refused(batch_size: int) -> None:
    unused: Any = None
    with pytest.raises(UserError, match=f"--batch-size {batch_size}: at least one view at once"):
        ScanLabeller(unused, unused, unused, unused, unused, batch_size=batch_size)


def test_views_come_by_what_they_add() -> None:
    def sample(*cells: int) -> Any:
        return SimpleNamespace(points=torch.tensor([[cell + 0.5, 0, 0] for cell in cells]))

    # The first sees most; then three new places, then one; nothing, unusable, at the end.
    assert by_worth([sample(1, 2), sample(1, 2, 3, 4), None, sample(3, 5), sample(6, 7, 8)]) == [1, 4, 3, 0, 2]
    assert by_worth([]) == []


def test_labels_settle_when_few_change() -> None:
    sums = FeatureAccumulator(np.zeros((10, 3), np.float32), 2)
    rows, first, second = torch.arange(10), torch.tensor([[1.0, 0.0]]), torch.tensor([[0.0, 1.0]])
    settling = Settling(sums, torch.eye(2), 0.2)
    base = torch.zeros(10)
    sums.add(rows[:8], first.expand(8, 2), None, base[:8])
    assert not settling.has_settled(sums)  # eight places are seen for the first time
    sums.add(rows, first.expand(10, 2), None, base)
    assert settling.has_settled(sums)  # two of ten
    sums.add(rows[:3], 9 * second.expand(3, 2), None, base[:3])
    assert settling.has_settled(sums)  # features count with length 1: once against twice
    for _ in range(2):
        sums.add(rows[:3], second.expand(3, 2), None, base[:3])
    assert not settling.has_settled(sums)  # three of ten
