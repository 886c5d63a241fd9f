"""Hungarian matching of queries with target masks (Mask2Former, arXiv 2112.01527, section 3.3)."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
import torch.nn.functional as F
from scipy.optimize import linear_sum_assignment
from torch import Tensor

from xmask3d.losses.sampling import Uniform, present_labels, sample_labels, sample_logits


@dataclass
class Matching:
    """Matched pairs of L predictions; every prediction has the same number M of pairs.

    Attributes:
        image, query, label: L x M int64, the pair's sample, its query and the label of its target mask.
    """

    image: Tensor
    query: Tensor
    label: Tensor


@torch.no_grad()
def match(
    mask_logits: Sequence[Tensor],
    class_logits: Sequence[Tensor],
    label_maps: Tensor,
    *,
    class_weight: float,
    mask_weight: float,
    dice_weight: float,
    num_points: int,
    uniform: Uniform,
) -> Matching:
    """Match the queries of every prediction with the target masks of their sample.

    A sample has one target mask for every distinct label of its map, the null label included.

    Args:
        mask_logits: B x Q x h x w, one tensor for each of L predictions.
        class_logits: B x Q x (C + 1) each.
        label_maps: B x H x W int64 in 0..C.
        class_weight, mask_weight, dice_weight: weights of the parts of the cost.
        num_points: P, points at which masks are compared, the same for all masks of a sample.
        uniform: source of random numbers, called once for L x B x P x 2 numbers.
    """
    size, labels = len(label_maps), class_logits[0].shape[-1]
    points = uniform((len(mask_logits), size, num_points, 2))
    weights = (class_weight, mask_weight, dice_weight)
    costs = torch.stack(
        [
            matching_cost(*prediction, label_maps, weights)
            for prediction in zip(mask_logits, class_logits, points, strict=True)
        ]
    )
    # The assignment must survive diverged predictions, since it is the losses that detect them.
    costs = costs.nan_to_num().masked_fill(~present_labels(label_maps, labels)[:, None], torch.inf)
    pairs = _assign(costs.cpu().numpy())
    image, query, label = torch.from_numpy(pairs).to(label_maps.device, non_blocking=True)
    return Matching(image, query, label)


def matching_cost(
    mask_logits: Tensor, class_logits: Tensor, points: Tensor, label_maps: Tensor, weights: tuple[float, float, float]
) -> Tensor:
    """Compute the cost of matching each query with the mask of each label.

    Args:
        mask_logits: B x Q x h x w. class_logits: B x Q x (C + 1). label_maps: B x H x W.
        points: B x P x 2.
        weights: weights of class probability, binary cross entropy and dice.

    Returns:
        B x Q x (C + 1).
    """
    logits = sample_logits(mask_logits, points)
    labels, shares = sample_labels(label_maps, torch.arange(len(points), device=points.device), points)
    targets = logits.new_zeros(*points.shape[:2], class_logits.shape[-1])
    targets.scatter_add_(2, labels, shares.to(targets.dtype))
    probability = logits.sigmoid()
    # Cross entropy is linear in the target: -t log p - (1 - t) log (1 - p) = softplus(x) - t x.
    cross_entropy = (F.softplus(logits).sum(-1)[..., None] - logits @ targets) / points.shape[1]
    overlap = 2 * (probability @ targets) + 1
    dice = 1 - overlap / (probability.sum(-1)[..., None] + targets.sum(1)[:, None] + 1)
    class_weight, mask_weight, dice_weight = weights
    return mask_weight * cross_entropy + dice_weight * dice - class_weight * class_logits.softmax(-1)


def _assign(costs: np.ndarray) -> np.ndarray:
    """Return the pairs of least cost, 3 x L x M (sample, query, label), from L x B x Q x labels; infinite if absent."""
    present = [np.flatnonzero(costs[0, b, 0] != np.inf) for b in range(costs.shape[1])]
    pairs = []
    for layer in costs:
        rows = []
        for b, cost in enumerate(layer):
            query, target = linear_sum_assignment(cost[:, present[b]])
            rows.append(np.stack([np.full_like(query, b), query, present[b][target]]))
        pairs.append(np.concatenate(rows, 1))
    return np.stack(pairs, 1)
