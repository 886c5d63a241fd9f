"""Votes over regions: sums, unseen points, and a gate that a region decides."""

import numpy as np
import pytest
import torch

from tests.helpers.outputs import FRAME, random_batch, random_outputs
from xmask3d.inference.region_labels import GateEvidence, label_regions
from xmask3d.inference.region_votes import RegionGate, among_their_kind, clip_odds
from xmask3d.models.fusion import Fuser, fuse_training

NOVEL = torch.tensor([False, True, False, True, False])


def outputs_with_masks() -> tuple:
    batch = random_batch()
    outputs = random_outputs(batch)
    outputs.fused = fuse_training(Fuser(6, FRAME), outputs, batch)
    return batch, outputs


def test_points_take_the_class_of_their_region_seen_or_not() -> None:
    votes = np.array([[5, 1, 0], [0, 2, 0], [0, 0, 0], [0, 0, 3], [0, 0, 0]])
    labels, shares = label_regions(votes, [np.array([0, 0, 0, 1, 2])], np.array([False, False, True]))
    np.testing.assert_array_equal(labels, [0, 0, 0, 2, -1])
    np.testing.assert_allclose(shares, [5 / 8, 5 / 8, 5 / 8, 1, 0])


def test_divisions_are_averaged() -> None:
    votes = np.array([[6, 4], [0, 10]])
    apart, together = np.array([0, 1]), np.array([0, 0])
    labels, shares = label_regions(votes, [apart, together], np.array([False, True]))
    np.testing.assert_array_equal(labels, [1, 1])  # (0.4 + 0.7) / 2 and (1 + 0.7) / 2
    np.testing.assert_allclose(shares, [0.55, 0.85])


def test_without_a_gate_kinds_weigh_the_same() -> None:
    probabilities = torch.tensor([[0.6, 0.1, 0.2, 0.1, 0.0], [1.0, 0.0, 0.0, 0.0, 0.0]])
    found = among_their_kind(probabilities, NOVEL)
    torch.testing.assert_close(found[0], torch.tensor([0.375, 0.25, 0.125, 0.25, 0.0]))
    torch.testing.assert_close(found[1], torch.tensor([0.5, 0.0, 0.0, 0.0, 0.0]))


def test_odds_are_of_the_mask_that_owns_the_point() -> None:
    batch, outputs = outputs_with_masks()
    text = torch.randn(5, 6, generator=torch.Generator().manual_seed(3))
    odds, covered = clip_odds(outputs, text, NOVEL)
    assert covered.any() and not covered.all() and (odds[~covered] == 0).all()
    row = int(covered.nonzero()[0])
    mask = outputs.clip_embeddings[batch.point_batch[row], outputs.fused.owner[row]]
    p = (14 * torch.nn.functional.cosine_similarity(mask[None], text)).softmax(0)
    assert float(odds[row].detach()) == pytest.approx(float((p[NOVEL].sum() / p[~NOVEL].sum()).log()), abs=1e-4)


def test_the_gate_weighs_head_and_clip_over_the_region() -> None:
    batch, outputs = outputs_with_masks()
    text = torch.randn(5, 6, generator=torch.Generator().manual_seed(3))
    gate, total = RegionGate(80), len(batch.points)
    gate.add(batch.point_index, outputs, text, NOVEL)
    region = np.r_[np.zeros(30, int), np.ones(40, int), np.full(10, 2)]
    odds, covered = clip_odds(outputs, text, NOVEL)
    own = outputs.binary_logits.sigmoid().detach()
    for number, rows in enumerate((slice(0, 30), slice(30, total))):
        head = own[rows].mean()
        mean = odds[rows][covered[rows]].mean()
        expected = torch.sigmoid(torch.logit(head) - 0.5 * mean)
        assert gate.summed().base_probability(region)[number] == pytest.approx(float(expected.detach()), abs=1e-3)
    assert gate.summed().base_probability(region)[2] == 0.5  # seen by nobody


def test_a_novel_region_is_told_by_the_gate() -> None:
    votes = np.array([[50, 0, 50], [60, 0, 40]])
    novel = np.array([False, False, True])

    class Sure(GateEvidence):
        def base_probability(self, region: np.ndarray, own_odds: np.ndarray | None = None) -> np.ndarray:
            return np.array([0.1, 0.9])

    labels, _ = label_regions(votes, [np.array([0, 1])], novel, Sure(np.zeros((2, 4))))
    np.testing.assert_array_equal(labels, [2, 0])
