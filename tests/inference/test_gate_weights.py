"""Weights of the region gate: fitted to labelled regions, kept in files, fixed without them."""

import numpy as np
import pytest

from xmask3d.inference.gate_weights import BEYOND_CHANCE, FIXED, FIXED_ASKED, GateWeights, clip_alone, fit_gate


def regions(weights: GateWeights, count: int = 4000) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Regions of 100 points whose kind is drawn by known weights."""
    rng = np.random.default_rng(1)
    evidence = rng.normal(0, [2, 3], (count, 2))
    is_base = rng.random(count) < weights.probability(evidence)
    return evidence, 100 * is_base, 100 * ~is_base


def test_the_fit_finds_the_weights_that_drew_the_labels() -> None:
    true = GateWeights(0.6, -0.9, 0.0, 1.0)
    fitted = fit_gate(*regions(true))
    assert fitted is not None
    np.testing.assert_allclose(fitted.values, true.values, atol=0.1)


def test_the_constant_is_the_odds_of_what_looks_alike() -> None:
    evidence = np.zeros((10000, 2))
    fitted = fit_gate(evidence, np.r_[np.full(9000, 50), np.zeros(1000)], np.r_[np.zeros(9000), np.full(1000, 50)])
    assert fitted is not None and fitted.bias == pytest.approx(np.log(9), abs=0.01)
    assert (fitted.head, fitted.clip) == pytest.approx((FIXED_ASKED.head, FIXED_ASKED.clip))  # no evidence, no change


def test_without_both_kinds_nothing_is_fitted() -> None:
    evidence = np.zeros((5, 2))
    assert fit_gate(evidence, np.ones(5), np.zeros(5)) is None
    assert fit_gate(evidence, np.zeros(5), np.zeros(5)) is None


def test_fixed_weights_and_clip_alone() -> None:
    evidence = np.array([[2.0, 1.0], [-2.0, 10.0]])
    np.testing.assert_allclose(FIXED.probability(evidence), 1 / (1 + np.exp([-1.5, 7.0])))
    chance = np.log(4 / 15)
    undecided = np.array([[9.0, chance + BEYOND_CHANCE], [-9.0, chance + BEYOND_CHANCE + 1]])
    np.testing.assert_allclose(clip_alone(4, 15).probability(undecided), [0.5, 1 / (1 + np.e)])


@pytest.mark.parametrize("values", [None, "abc", [1, 2], [1, 2, 3, float("nan")], {"a": 1}, 3])
def test_anything_else_in_a_file_is_no_gate(values: object) -> None:
    assert GateWeights.read(values) is None


def test_a_file_gives_back_what_was_written() -> None:
    assert GateWeights.read(GateWeights(0.5, -0.25, 1.0, 1.0).values) == GateWeights(0.5, -0.25, 1.0, 1.0)
