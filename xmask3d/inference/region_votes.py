"""Votes of views by region of the cloud: an object has one class, and is all base or all novel.

What views say of single points is summed over regions (`xmask3d.geometry.superpoints`); all points of a region, seen or
not, take its class; several divisions of the cloud are averaged. With `RegionGate` the choice between base and novel
classes is made once a region too, by the binary head and by CLIP, see `gate_weights`. Not of the paper.
"""

from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor

from xmask3d.inference.gate_weights import FIXED, GateWeights
from xmask3d.inference.votes import WHOLE_VOTE
from xmask3d.models.outputs import Outputs
from xmask3d.models.similarity import at_least_float32, cosine_logits

SUREST = 1e-4  # distance that the head's mean keeps from 0 and 1
LARGEST_ODDS = 50.0


def clip_odds(outputs: Outputs, text: Tensor, novel: Tensor) -> tuple[Tensor, Tensor]:
    """Log odds of novel against base names in CLIP's view of the mask that owns each point.

    Args:
        outputs: outputs with CLIP's mask embeddings.
        text: K x D. novel: K bool, some but not all true.

    Returns:
        N odds, 0 where no mask owns the point; and N bool, true where one does.
    """
    fused = outputs.fused
    assert fused is not None and outputs.clip_embeddings is not None, "odds need a forward with masks and mask_clip"
    text = at_least_float32(text)
    temperature = at_least_float32(outputs.temperature)
    logits = cosine_logits(at_least_float32(outputs.clip_embeddings).to(text.dtype), text, temperature)
    odds = logits[..., novel].logsumexp(-1) - logits[..., ~novel].logsumexp(-1)
    of_point = odds[fused.point_batch, fused.owner.clamp(min=0)].clamp(-LARGEST_ODDS, LARGEST_ODDS)
    return torch.where(fused.covered, of_point, 0), fused.covered


def among_their_kind(probabilities: Tensor, novel: Tensor) -> Tensor:
    """Scale the base classes of each row, and its novel ones, to a sum of one half, which removes the gate.

    Args:
        probabilities: N x K. novel: K bool, some but not all true.
    """
    novel_share = (probabilities * novel).sum(-1, keepdim=True)
    base_share = (probabilities * ~novel).sum(-1, keepdim=True)
    tiny = torch.finfo(probabilities.dtype).tiny
    return probabilities / (2 * torch.where(novel, novel_share, base_share).clamp(min=tiny))


class RegionGate:
    """Evidence of a scene's points for being base: the binary head's probability and CLIP's log odds.

    Sums are of whole numbers, so that order and batches of the views do not matter.
    """

    def __init__(self, num_points: int, weights: GateWeights = FIXED) -> None:
        """Start without evidence.

        Args:
            num_points: n, points of the scene.
            weights: weights of head and CLIP.
        """
        self.weights = weights
        self._sums = torch.zeros(num_points, 4, dtype=torch.int64)  # probability, rows, odds, rows with odds

    @torch.no_grad()
    def add(self, point_index: Tensor, outputs: Outputs, text: Tensor, novel: Tensor) -> None:
        """Add the evidence of some views' rows.

        Args:
            point_index: N int64, point of each row.
            outputs, text, novel: see `clip_odds`.
        """
        odds, covered = clip_odds(outputs, text, novel)
        probability = at_least_float32(outputs.binary_logits).sigmoid()
        rows = torch.stack([probability, torch.ones_like(probability), odds.to(probability.dtype), covered], 1)
        whole = (rows.double() * WHOLE_VOTE).round().long().cpu()
        self._sums.index_add_(0, point_index.cpu(), whole)

    def base_probability(self, region: np.ndarray) -> np.ndarray:
        """Return the probability of each of R regions of being base; 1/2 for a region that no view shows.

        Args:
            region: n int, region of each point.
        """
        evidence, seen = self.evidence(region)
        return np.where(seen, self.weights.probability(evidence), 0.5)

    def evidence(self, region: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Return the evidence of regions, R x 2 as of `GateWeights`, and those that any view shows, R bool."""
        sums = sum_regions(region, self._sums.numpy().astype(np.float64))
        head = np.divide(sums[:, 0], sums[:, 1], where=sums[:, 1] > 0, out=np.full(len(sums), 0.5))
        odds = np.divide(sums[:, 2], sums[:, 3], where=sums[:, 3] > 0, out=np.zeros(len(sums)))
        head = head.clip(SUREST, 1 - SUREST)
        return np.stack([np.log(head / (1 - head)), odds], 1), sums[:, 1] > 0


def label_regions(
    votes: np.ndarray, divisions: Sequence[np.ndarray], novel: np.ndarray, gate: RegionGate | None = None
) -> tuple[np.ndarray, np.ndarray]:
    """Label every point with the class that its regions were voted.

    Args:
        votes: n x K votes of the points; with a gate those of `among_their_kind`.
        divisions: regions of the points, n int each.
        novel: K bool.
        gate: decides between base and novel classes region by region.

    Returns:
        n int64 classes, -1 where none of a point's regions was voted on; and the share of the votes that they had.
    """
    shares = np.zeros(votes.shape, np.float32)
    for region in divisions:
        sums = sum_regions(region, votes)
        if gate is not None:
            base = gate.base_probability(region)[:, None]
            sums *= np.where(novel, 1 - base, base)
        totals = sums.sum(1, keepdims=True)
        shares += np.divide(sums, totals, where=totals > 0, out=sums)[region].astype(np.float32)
    labels = np.where(shares.any(1), shares.argmax(1), -1)
    return labels, shares.max(1) / len(divisions)


def sum_regions(region: np.ndarray, values: np.ndarray) -> np.ndarray:
    """Sum the rows (n x C) of each region: R x C float64."""
    count = int(region.max()) + 1
    return np.stack([np.bincount(region, column, count) for column in values.T], 1)
