import numpy as np
import pytest
import torch

from xmask3d.models.gate import soft_gate
from xmask3d.segment.saved_features import PointFeatures


def features(**about: str) -> PointFeatures:
    nothing = np.zeros((0, 3), np.float32)
    return PointFeatures(nothing, nothing, nothing, nothing, nothing, nothing, nothing, about)


def test_answers_are_gated_as_labels_are() -> None:
    rng = np.random.default_rng(0)
    scores, base = rng.normal(size=(50, 5)).astype(np.float32), rng.random(50).astype(np.float32)
    novel = np.array([False, True, False, True, True])
    expected = soft_gate(torch.from_numpy(scores), torch.from_numpy(base), torch.from_numpy(novel))
    np.testing.assert_allclose(features(gate="soft")._gated(scores, base, novel), expected, atol=1e-5)
    np.testing.assert_array_equal(features(gate="none")._gated(scores, base, novel), scores)
    # Files of earlier versions do not say: they were gated hard.
    hard = features()._gated(scores, base, novel)
    np.testing.assert_array_equal(hard == np.finfo(np.float32).min, novel == (base > 0.5)[:, None])


@pytest.mark.parametrize("gate", ["hard", "soft"])
def test_words_of_one_kind_are_not_gated(gate: str) -> None:
    scores, base = np.ones((2, 3), np.float32), np.zeros(2, np.float32)
    for novel in (np.zeros(3, bool), np.ones(3, bool)):
        np.testing.assert_array_equal(features(gate=gate)._gated(scores, base, novel), scores)
