"""Recorded numbers that parts are checked against."""

import re
from pathlib import Path

import numpy as np
from torch import Tensor

GOLDEN = Path(__file__).parents[1] / "golden"


def load_case(name: str) -> tuple[dict[str, np.ndarray], dict[str, np.ndarray]]:
    """Inputs and outputs of a case."""
    with np.load(GOLDEN / name / "inputs.npz") as inputs, np.load(GOLDEN / name / "outputs.npz") as outputs:
        return dict(inputs), dict(outputs)


def assert_matches(outputs: dict[str, np.ndarray], name: str, actual: Tensor, tolerance: float = 1e-4) -> None:
    """Compare with what was recorded of a tensor: the whole, or every n-th element; and its shape and statistics.

    Args:
        tolerance: relative to the largest recorded magnitude.
    """
    values = actual.detach().double().numpy()
    recorded = [key for key in outputs if key == name or re.fullmatch(re.escape(name) + r"_every\d+", key)]
    assert recorded or f"{name}_stats" in outputs, f"nothing recorded of {name}"
    for key in recorded:
        step = 1 if key == name else int(key.rpartition("every")[2])
        expected = outputs[key].reshape(-1)
        np.testing.assert_allclose(values.reshape(-1)[::step], expected, rtol=0, atol=tolerance * abs(expected).max())
    if f"{name}_shape" in outputs:
        assert values.shape == tuple(outputs[f"{name}_shape"])
    if f"{name}_stats" in outputs:
        stats = [values.mean(), values.std(), np.linalg.norm(values), values.min(), values.max()]
        atol = tolerance * abs(values).max()
        np.testing.assert_allclose(stats, outputs[f"{name}_stats"], rtol=tolerance, atol=atol)
