"""Set loss on masks and their classes (paper Eq. 12; Mask2Former, arXiv 2112.01527)."""

from __future__ import annotations

from collections.abc import Sequence

import torch
import torch.distributed as dist
import torch.nn.functional as F
from torch import Tensor

from xmask3d.losses.matcher import Matching
from xmask3d.losses.sampling import Uniform, present_labels, sample_labels, sample_logits

# Candidates per point, and the share of points chosen for their uncertainty (PointRend, arXiv 1912.08193).
OVERSAMPLE = 3.0
IMPORTANCE = 0.75


def class_loss(class_logits: Tensor, matching: Matching, layer: int, no_object: float) -> Tensor:
    """Compute the cross entropy of query classes; unmatched queries are null.

    Args:
        class_logits: B x Q x (C + 1), null last.
        layer: row of the matching, one per prediction.
        no_object: weight of the null class, whether matched or not; all other classes have weight 1.

    Returns:
        Scalar, the weighted mean over queries.
    """
    null = class_logits.shape[-1] - 1
    targets = torch.full(class_logits.shape[:2], null, dtype=torch.long, device=class_logits.device)
    targets[matching.image[layer], matching.query[layer]] = matching.label[layer]
    weight = F.pad(class_logits.new_ones(null), (0, 1), value=no_object)
    return F.cross_entropy(class_logits.flatten(0, 1), targets.flatten(), weight)


def mask_losses(
    mask_logits: Tensor, label_maps: Tensor, matching: Matching, layer: int, num_points: int, uniform: Uniform
) -> tuple[Tensor, Tensor]:
    """Compute binary cross entropy and dice of the M matched masks, at points where the prediction is uncertain.

    Args:
        mask_logits: B x Q x h x w. label_maps: B x H x W int64.
        num_points: P, points per mask.
        uniform: source of random numbers, called for M x 3 P x 2 numbers and then for M x (P / 4) x 2.

    Returns:
        Two scalars, summed over pairs and still to be divided by the number of targets.
    """
    image, query, label = matching.image[layer], matching.query[layer], matching.label[layer]
    rows = image * mask_logits.shape[1] + query
    logits = mask_logits.flatten(0, 1).index_select(0, rows)[:, None]
    points = uncertain_points(logits.detach(), num_points, uniform)
    labels, shares = sample_labels(label_maps, image, points)
    targets = ((labels == label[:, None, None]) * shares).sum(-1).to(logits.dtype)
    predicted = sample_logits(logits, points).squeeze(1)
    cross_entropy = F.binary_cross_entropy_with_logits(predicted, targets, reduction="none").mean(1).sum()
    probability = predicted.sigmoid()
    overlap = 2 * (probability * targets).sum(-1) + 1
    dice = 1 - overlap / (probability.sum(-1) + targets.sum(-1) + 1)
    return cross_entropy, dice.sum()


@torch.no_grad()
def uncertain_points(logits: Tensor, num_points: int, uniform: Uniform) -> Tensor:
    """Draw points of each mask: three quarters are the candidates with logits nearest to 0, the rest is uniform.

    Args:
        logits: M x 1 x h x w.

    Returns:
        M x num_points x 2 as (x, y) in [0, 1].
    """
    size, uncertain = len(logits), int(IMPORTANCE * num_points)
    candidates = uniform((size, int(OVERSAMPLE * num_points), 2))
    doubt = -sample_logits(logits, candidates).squeeze(1).abs()
    chosen = doubt.topk(uncertain, dim=1, sorted=False).indices
    kept = candidates.gather(1, chosen[..., None].expand(-1, -1, 2))
    return torch.cat([kept, uniform((size, num_points - uncertain, 2))], 1)


class TargetCount:
    """Number of target masks of a batch per process, averaged over processes, at least 1.

    It is made before the model runs and summed over the processes meanwhile, so that none has to wait in mid-step.
    """

    def __init__(self, label_maps: Tensor, num_labels: int) -> None:
        """Start the sum over processes; every process of a group does so at the same place of its step.

        Args:
            label_maps: B x H x W int64 in 0..num_labels - 1; every label of a map, including null, makes a target mask.
        """
        self._sum = present_labels(label_maps, num_labels).sum().float()
        self._exchange, self._processes = None, 1
        if dist.is_available() and dist.is_initialized():
            self._exchange, self._processes = dist.all_reduce(self._sum, async_op=True), dist.get_world_size()

    def mean(self) -> Tensor:
        """Return the mean, a scalar float32, after waiting for processes that have not counted theirs yet."""
        if self._exchange is not None:
            self._exchange.wait()
        return (self._sum / self._processes).clamp(min=1)


def set_losses(
    mask_logits: Sequence[Tensor],
    class_logits: Sequence[Tensor],
    label_maps: Tensor,
    matching: Matching,
    targets: TargetCount,
    *,
    no_object: float,
    num_points: int,
    uniform: Uniform,
) -> tuple[Tensor, Tensor, Tensor]:
    """Compute class, mask and dice losses of L predictions, not weighted: three tensors of L numbers (paper Eq. 12).

    Class losses are means over queries; mask losses are sums over pairs, divided by the mean of `targets`.
    """
    classes, masks, dices = [], [], []
    for layer, (masks_of_layer, classes_of_layer) in enumerate(zip(mask_logits, class_logits, strict=True)):
        classes.append(class_loss(classes_of_layer, matching, layer, no_object))
        mask, dice = mask_losses(masks_of_layer, label_maps, matching, layer, num_points, uniform)
        masks.append(mask)
        dices.append(dice)
    count = targets.mean()
    return torch.stack(classes), torch.stack(masks) / count, torch.stack(dices) / count
