"""Weights of the region gate: how much the binary head and CLIP count, fixed or fitted to labelled regions."""

import math
from dataclasses import astuple, dataclass
from typing import Any

import numpy as np

ITERATIONS = 50
PRIOR = 1.0  # strength of the pull towards the fixed weights, in regions
LARGEST = 20.0  # largest logarithm of the evidence; beyond it nothing gets more certain


@dataclass(frozen=True)
class GateWeights:
    """Logistic regression that predicts from a region's evidence whether it is base.

    Attributes:
        head: weight of the logit of the binary head's mean probability.
        clip: weight of CLIP's mean log odds of novel against base names.
        bias: constant.
        asked: 1 if the odds combine those of masks with CLIP's own view of the region, 0 if they are those of masks
            alone.
    """

    head: float = 1.0
    clip: float = -0.5
    bias: float = 0.0
    asked: float = 0.0

    def probability(self, evidence: np.ndarray) -> np.ndarray:
        """Return the probability that a region is base, for R x 2 evidence: the head's logit and CLIP's odds."""
        score = evidence @ np.array([self.head, self.clip]) + self.bias
        return 1 / (1 + np.exp(-score.clip(-LARGEST, LARGEST)))

    @property
    def values(self) -> list[float]:
        """Plain numbers, for files."""
        return list(astuple(self))

    @classmethod
    def read(cls, values: Any) -> "GateWeights | None":
        """Read the numbers that `values` returned from a file; None if the file does not hold them."""
        try:
            numbers = [float(value) for value in values]
        except (TypeError, ValueError):
            return None
        return cls(*numbers) if len(numbers) in (3, 4) and np.isfinite(numbers).all() else None


FIXED = GateWeights()
FIXED_ASKED = GateWeights(head=0.7, clip=-1.0, bias=-0.66, asked=1.0)
BEYOND_CHANCE = 0.75  # log odds that novel names must exceed before they are believed


def clip_alone(novel: int, base: int) -> GateWeights:
    """Return weights that ignore the head, so that labels of novel classes play no part.

    Where CLIP has no preference, its odds are the ratio of the numbers of novel and base names.
    """
    return GateWeights(0.0, -1.0, math.log(novel / base) + BEYOND_CHANCE, asked=1.0)


def fit_gate(evidence: np.ndarray, base: np.ndarray, novel: np.ndarray) -> GateWeights | None:
    """Fit the gate to labelled regions by Newton's method; None if there are no base or no novel regions.

    A region's weight is the square root of its number of points.

    Args:
        evidence: R x 2, see `GateWeights.probability`.
        base, novel: R, labelled points of each kind in the region.
    """
    weight, target = np.sqrt(base + novel), base / np.maximum(base + novel, 1)
    if not base.any() or not novel.any():
        return None
    columns = np.column_stack([evidence, np.ones(len(evidence))])
    start = found = np.array(FIXED_ASKED.values[:3])
    for _ in range(ITERATIONS):
        probability = GateWeights(*found).probability(evidence)
        gradient = columns.T @ (weight * (probability - target)) + PRIOR * (found - start)
        curvature = weight * np.maximum(probability * (1 - probability), 1e-6)
        step = np.linalg.solve(columns.T @ (curvature[:, None] * columns) + PRIOR * np.eye(3), gradient)
        found = found - step * min(1.0, 1.0 / max(np.abs(step).max(), 1e-12))
        if np.abs(step).max() < 1e-6:
            break
    head, clip, bias = map(float, found)
    return GateWeights(head, clip, bias, asked=1.0)
