"""Labels of regions of a cloud, from the votes on single points, in plain NumPy.

Votes are summed over regions (`xmask3d.geometry.superpoints`); all points of a region, seen or not, take its class, and
several divisions of the cloud are averaged. With `GateEvidence` the choice between base and novel classes is also made
once per region, by the binary head and CLIP. This is not part of the paper.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from xmask3d.inference.gate_weights import FIXED, GateWeights
from xmask3d.models.gate import log_softmax

SUREST = 1e-4  # the head's mean is kept this far from 0 and 1
LARGEST_ODDS = 50.0
LEAST = 1e-9  # a smaller share of the votes counts as none


@dataclass
class GateEvidence:
    """Evidence of points, or of groups of points, for being base or novel.

    Attributes:
        sums: n x 4: sum and number of the head's probabilities of being base, then sum and number of CLIP's log odds
            of novel against base names.
        weights: weights of head and CLIP.
    """

    sums: np.ndarray
    weights: GateWeights = FIXED

    def base_probability(self, region: np.ndarray, own_odds: np.ndarray | None = None) -> np.ndarray:
        """Return the probability that each of R regions is base; 1/2 for a region that no view shows.

        Args:
            region: n int, region of each row of `sums`.
            own_odds: R log odds from CLIP's own view of the regions, if there is one.
        """
        evidence, seen = self.evidence(region, own_odds)
        return np.where(seen, self.weights.probability(evidence), 0.5)

    def evidence(self, region: np.ndarray, own_odds: np.ndarray | None = None) -> tuple[np.ndarray, np.ndarray]:
        """Return the evidence of regions, R x 2 as in `GateWeights`, and which of them any view shows, R bool.

        If there are odds of masks and of the regions themselves, the two are averaged.
        """
        sums = sum_regions(region, self.sums)
        head = np.divide(sums[:, 0], sums[:, 1], where=sums[:, 1] > 0, out=np.full(len(sums), 0.5))
        odds = np.divide(sums[:, 2], sums[:, 3], where=sums[:, 3] > 0, out=np.zeros(len(sums)))
        if own_odds is not None:
            odds = np.where(sums[:, 3] > 0, (odds + own_odds) / 2, own_odds)
        head = head.clip(SUREST, 1 - SUREST)
        return np.stack([np.log(head / (1 - head)), odds], 1), sums[:, 1] > 0


def label_regions(
    votes: np.ndarray,
    divisions: Sequence[np.ndarray],
    novel: np.ndarray,
    gate: GateEvidence | None = None,
    temperature: float = 1.0,
    voices: Sequence[np.ndarray] | None = None,
    voice_share: float = 0.0,
) -> tuple[np.ndarray, np.ndarray]:
    """Label every point with the class that won the vote in its regions.

    Args:
        votes: n x K votes of the points, or of groups of points that share all their regions; with a gate, base classes
            and novel ones have equal sums, see `xmask3d.inference.region_votes.among_their_kind`.
        divisions: region of each point, n int, one array per division.
        novel: K bool.
        gate: decides between base and novel classes region by region.
        temperature: temperature of the shares, see `calibrated`.
        voices: log probabilities of the classes from CLIP's embedding of the regions, R x K for each division; the gate
            uses them too.
        voice_share: exponent of `voices` in their geometric mean with the votes, taken among base classes and among
            novel classes separately.

    Returns:
        n int64 classes, -1 for a point whose regions had no votes; and the share of the votes for each point's class.
    """
    shares = np.zeros(votes.shape, np.float32)
    for number, region in enumerate(divisions):
        sums = sum_regions(region, votes)
        if voices is not None and voice_share:
            for kind in (kind for kind in (novel, ~novel) if kind.any()):
                sums[:, kind] = _mix(sums[:, kind], voices[number][:, kind], voice_share)
        if gate is not None:
            own_odds = None if voices is None else novel_odds(voices[number], novel)
            base = gate.base_probability(region, own_odds)[:, None]
            sums *= np.where(novel, 1 - base, base)
        totals = sums.sum(1, keepdims=True)
        shares += np.divide(sums, totals, where=totals > 0, out=sums)[region].astype(np.float32)
    labels = np.where(shares.any(1), shares.argmax(1), -1)
    return labels, calibrated(shares / len(divisions), temperature)


def novel_odds(log_probabilities: np.ndarray, novel: np.ndarray) -> np.ndarray:
    """Return the log odds of novel against base classes, from R x K log probabilities."""
    of_novel, of_base = (np.logaddexp.reduce(log_probabilities[:, kind], axis=1) for kind in (novel, ~novel))
    return (of_novel - of_base).clip(-LARGEST_ODDS, LARGEST_ODDS)


def _mix(votes: np.ndarray, voice: np.ndarray, share: float) -> np.ndarray:
    """Mix votes and log probabilities, R x C each, in a geometric mean that keeps each region's number of votes."""
    totals = votes.sum(1, keepdims=True)
    own = np.log(np.maximum(votes / np.maximum(totals, 1), LEAST))
    return totals * np.exp(log_softmax((1 - share) * own + share * log_softmax(voice)))


def calibrated(shares: np.ndarray, temperature: float) -> np.ndarray:
    """Return the largest probability of each row, n, at a temperature; above 1 it is less confident than the shares.

    Args:
        shares: n x K, not negative; rows of zeros have a probability of 0.
        temperature: value fitted by `python -m tools.studies.reliability`.
    """
    if temperature == 1:
        return shares.max(1)
    largest = shares.max(1, keepdims=True)
    relative = np.divide(shares, largest, where=largest > 0, out=np.zeros_like(shares)) ** (1 / temperature)
    return np.divide(1, relative.sum(1), where=largest[:, 0] > 0, out=np.zeros_like(largest[:, 0]))


def common_parts(divisions: Sequence[np.ndarray]) -> tuple[np.ndarray, np.ndarray]:
    """Find the parts of a cloud that no division divides.

    Args:
        divisions: region of each of n points, n int; one array per division, at least one.

    Returns:
        n int32, the part of each point; and P x (number of divisions) int32, the regions of each part.
    """
    regions, part = np.unique(np.stack(divisions, 1), axis=0, return_inverse=True)
    return part.reshape(-1).astype(np.int32), regions.astype(np.int32)


def sum_regions(region: np.ndarray, values: np.ndarray, count: int | None = None) -> np.ndarray:
    """Sum the rows (n x C) of each region: R x C float64. R is `count`, by default the number of regions that occur."""
    count = int(region.max()) + 1 if count is None else count
    return np.stack([np.bincount(region, column, count) for column in values.T], 1)
