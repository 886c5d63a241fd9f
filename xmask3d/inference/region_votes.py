"""Votes by region of the cloud, made from the outputs of views for `xmask3d.inference.region_labels` to sum."""

import numpy as np
import torch
from torch import Tensor

from xmask3d.data.scene import Scene
from xmask3d.geometry.superpoints import superpoints
from xmask3d.inference.gate_weights import FIXED, GateWeights
from xmask3d.inference.region_labels import LARGEST_ODDS, GateEvidence
from xmask3d.inference.votes import WHOLE_VOTE
from xmask3d.models.outputs import Outputs
from xmask3d.models.similarity import at_least_float32, cosine_logits


def clip_odds(outputs: Outputs, text: Tensor, novel: Tensor) -> tuple[Tensor, Tensor]:
    """Return the log odds of novel against base names in CLIP's view of the mask that owns each point.

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
    """Scale base and novel classes of each row to a sum of one half each, which removes the effect of the gate.

    Args:
        probabilities: N x K. novel: K bool, some but not all true.
    """
    novel_share = (probabilities * novel).sum(-1, keepdim=True)
    base_share = (probabilities * ~novel).sum(-1, keepdim=True)
    tiny = torch.finfo(probabilities.dtype).tiny
    return probabilities / (2 * torch.where(novel, novel_share, base_share).clamp(min=tiny))


def divide(scene: Scene) -> list[np.ndarray]:
    """Divide a scene into regions: the segments that came with it, or else its superpoints."""
    if scene.segments is not None:
        return [scene.segments]
    return superpoints(scene.points, (scene.colors + 1) / 2)


class RegionGate:
    """Evidence of a scene's points for being base: the binary head's probability and CLIP's log odds.

    Integers are summed, so that the order and batching of views do not matter.
    """

    def __init__(self, num_points: int, weights: GateWeights = FIXED) -> None:
        """Start without evidence.

        Args:
            num_points: n, points of the scene.
            weights: weights of head and CLIP.
        """
        self.weights = weights
        # sum of probabilities, rows, sum of odds, rows with odds
        self._sums = torch.zeros(num_points, 4, dtype=torch.int64)

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

    def summed(self) -> GateEvidence:
        """Return the evidence of each point."""
        return GateEvidence(self._sums.numpy().astype(np.float64), self.weights)
