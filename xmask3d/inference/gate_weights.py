"""Weights of the region gate: how much the binary head and CLIP count, fixed or fitted to labelled regions."""

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
    """

    head: float = 1.0
    clip: float = -0.5
    bias: float = 0.0

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
        """Read what `values` gave from a file; None where it holds no three finite numbers."""
        try:
            numbers = [float(value) for value in values]
        except (TypeError, ValueError):
            return None
        return cls(*numbers) if len(numbers) == 3 and np.isfinite(numbers).all() else None


FIXED = GateWeights()
CLIP_ALONE = GateWeights(head=0.0, clip=-0.5, bias=2.0)  # most regions are base, which no label has to tell


def fit_gate(evidence: np.ndarray, base: np.ndarray, novel: np.ndarray) -> GateWeights | None:
    """Fit the gate to labelled regions by Newton's method; None where regions of a kind are missing.

    A region counts by the root of its points, and base and novel regions together count alike, since scores are means
    over classes, not points.

    Args:
        evidence: R x 2, see `GateWeights.probability`.
        base, novel: R, labelled points of each kind in the region.
    """
    size = np.sqrt(base + novel)
    share = base / np.maximum(base + novel, 1)
    kinds = np.stack([size * share, size * (1 - share)])  # 2 x R
    totals = kinds.sum(1, keepdims=True)
    if not (totals > 0).all():
        return None
    kinds *= np.count_nonzero(size) / 2 / totals
    weight, target = kinds.sum(0), kinds[0] / np.maximum(kinds.sum(0), 1e-12)
    columns = np.column_stack([evidence, np.ones(len(evidence))])
    start = found = np.array(FIXED.values)
    for _ in range(ITERATIONS):
        probability = GateWeights(*found).probability(evidence)
        gradient = columns.T @ (weight * (probability - target)) + PRIOR * (found - start)
        curvature = weight * np.maximum(probability * (1 - probability), 1e-6)
        step = np.linalg.solve(columns.T @ (curvature[:, None] * columns) + PRIOR * np.eye(3), gradient)
        found = found - step * min(1.0, 1.0 / max(np.abs(step).max(), 1e-12))
        if np.abs(step).max() < 1e-6:
            break
    return GateWeights(*map(float, found))
