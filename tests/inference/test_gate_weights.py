"""Weights of the region gate: fitted to labelled regions, kept in files, fixed without them."""

import numpy as np
import pytest

from xmask3d.inference.gate_weights import CLIP_ALONE, FIXED, GateWeights, fit_gate


def regions(weights: GateWeights, count: int = 4000) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Regions of 100 points whose kind is drawn by known weights."""
    rng = np.random.default_rng(1)
    evidence = rng.normal(0, [2, 3], (count, 2))
    is_base = rng.random(count) < weights.probability(evidence)
    return evidence, 100 * is_base, 100 * ~is_base


def test_the_fit_finds_the_weights_that_drew_the_labels() -> None:
    true = GateWeights(0.6, -0.9, 0.0)
    fitted = fit_gate(*regions(true))
    assert fitted is not None
    np.testing.assert_allclose(fitted.values, true.values, atol=0.1)


def test_kinds_count_alike() -> None:
    """Nine base regions for each novel one leave the threshold where it would be for as many of both."""
    evidence = np.array([[1.0, 0.0]] * 90 + [[-1.0, 0.0]] * 10)
    fitted = fit_gate(evidence, np.r_[np.full(90, 50), np.zeros(10)], np.r_[np.zeros(90), np.full(10, 50)])
    assert fitted is not None and abs(fitted.bias) < 0.05 and fitted.head > 1
    assert fitted.clip == pytest.approx(FIXED.clip)  # without evidence it stays


def test_without_both_kinds_nothing_is_fitted() -> None:
    evidence = np.zeros((5, 2))
    assert fit_gate(evidence, np.ones(5), np.zeros(5)) is None
    assert fit_gate(evidence, np.zeros(5), np.zeros(5)) is None


def test_fixed_weights_and_clip_alone() -> None:
    evidence = np.array([[2.0, 1.0], [-2.0, 10.0]])
    np.testing.assert_allclose(FIXED.probability(evidence), 1 / (1 + np.exp([-1.5, 7.0])))
    np.testing.assert_allclose(CLIP_ALONE.probability(evidence), 1 / (1 + np.exp([-1.5, 3.0])))


@pytest.mark.parametrize("values", [None, "abc", [1, 2], [1, 2, float("nan")], {"a": 1}, 3])
def test_anything_else_in_a_file_is_no_gate(values: object) -> None:
    assert GateWeights.read(values) is None


def test_a_file_gives_back_what_was_written() -> None:
    assert GateWeights.read(GateWeights(0.5, -0.25, 1.0).values) == GateWeights(0.5, -0.25, 1.0)
