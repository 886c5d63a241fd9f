"""Weights of the region gate: how much the binary head and CLIP count, fixed or fitted to labelled regions."""

import math
from dataclasses import astuple, dataclass
from typing import Any

import numpy as np

ITERATIONS = 50
PRIOR = 1.0  # pull towards the fixed weights, in regions
LARGEST = 20.0  # of the evidence's logarithm; larger is as sure


@dataclass(frozen=True)
class GateWeights:
    """Logistic regression of a region's being base on its evidence.

    Attributes:
        head: weight of the logit of the binary head's mean probability.
        clip: weight of CLIP's mean log odds of novel against base names.
        bias: constant.
        asked: 1 if the odds are those of masks and of CLIP's own view of the region, 0 if of masks alone.
    """

    head: float = 1.0
    clip: float = -0.5
    bias: float = 0.0
    asked: float = 0.0

    def probability(self, evidence: np.ndarray) -> np.ndarray:
        """Return the probability of being base of R regions, from R x 2 evidence: head's logit and CLIP's odds."""
        score = evidence @ np.array([self.head, self.clip]) + self.bias
        return 1 / (1 + np.exp(-score.clip(-LARGEST, LARGEST)))

    @property
    def values(self) -> list[float]:
        """Plain numbers, for files."""
        return list(astuple(self))

    @classmethod
    def read(cls, values: Any) -> "GateWeights | None":
        """Read what `values` gave from a file; None where it holds no such numbers."""
        try:
            numbers = [float(value) for value in values]
        except (TypeError, ValueError):
            return None
        return cls(*numbers) if len(numbers) in (3, 4) and np.isfinite(numbers).all() else None


FIXED = GateWeights()
FIXED_ASKED = GateWeights(head=0.7, clip=-1.0, bias=-0.66, asked=1.0)
BEYOND_CHANCE = 0.75  # log odds by which novel names must win before they are believed


def clip_alone(novel: int, base: int) -> GateWeights:
    """Return weights that leave the head out, for so many novel and base names: no label of a novel class is read.

    Where CLIP knows nothing, its odds are those of the numbers of names.
    """
    return GateWeights(0.0, -1.0, math.log(novel / base) + BEYOND_CHANCE, asked=1.0)


def fit_gate(evidence: np.ndarray, base: np.ndarray, novel: np.ndarray) -> GateWeights | None:
    """Fit the gate to labelled regions by Newton's method; None where regions of a kind are missing.

    A region counts by the root of its points.

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
