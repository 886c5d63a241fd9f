"""Mask regularisation: pulls the 3D features of a mask to its CLIP embedding (paper Eq. 10, section 3.4)."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from xmask3d.losses.point_losses import count_pairs
from xmask3d.models.fusion import sum_per_sample
from xmask3d.models.similarity import at_least_float32

MIN_POINTS = 10
MASKS_AT_ONCE = 8  # masks resized at a time, so that they fit the processor's cache
# A mask is novel (base) if it has more novel (base) points than RATIO times the others, and more than the minimum.
NOVEL_RATIO, NOVEL_POINTS, NOVEL_MASKS = 1.8, 10, 4
BASE_RATIO, BASE_POINTS, BASE_MASKS = 20.0, 150, 1


def mask_regularisation(
    voxels_3d: Tensor,
    point_to_voxel: Tensor,
    clip_embeddings: Tensor,
    mask_logits: Tensor,
    point_logits: Tensor,
    targets: Tensor,
    point_batch: Tensor,
    frame_size: tuple[int, int],
) -> Tensor:
    """Compute 1 - cosine of a mask's mean 3D feature and its CLIP embedding, averaged over the chosen masks.

    Args:
        voxels_3d: V x D. point_to_voxel: N int64, voxel of each point.
        clip_embeddings: B x Q x D.
        mask_logits: B x Q x h x w. point_logits: N x Q, the mask logits at the points.
        targets: N int64, 1 base, 0 novel (or unlabelled), -1 unknown; used to choose masks.
        point_batch: N int64.
        frame_size: height and width of the grid on which masks are ranked.

    Returns:
        Scalar, 0 if no mask is chosen.
    """
    size = len(mask_logits)
    inside = covered_points(point_logits, point_batch, size)
    is_novel, is_base = eligible_masks(inside, targets, point_batch, size)
    confidence = mask_confidence(mask_logits, frame_size, is_novel | is_base)
    chosen, valid = choose_masks(is_novel, is_base, confidence)
    # Number of a voxel's points under each chosen mask (under none, last): the weights of an average over voxels.
    under = inside.gather(1, chosen[point_batch])
    slots = torch.arange(chosen.numel(), device=chosen.device).view_as(chosen)[point_batch]
    slots = torch.where(under, slots, chosen.numel())
    features = at_least_float32(voxels_3d)
    voxel_of = point_to_voxel[:, None].expand_as(slots)
    counts = count_pairs(slots.flatten(), voxel_of.flatten(), (chosen.numel() + 1, len(features)))[:-1]
    weights = counts.to(features.dtype)
    means = (weights @ features / weights.sum(-1, keepdim=True).clamp(min=1)).unflatten(0, chosen.shape)
    wanted = clip_embeddings.detach().to(means.dtype).gather(1, chosen[..., None].expand(-1, -1, means.shape[-1]))
    distance = 1 - F.cosine_similarity(means, wanted, dim=-1)
    return torch.where(valid, distance, 0).sum() / valid.sum().clamp(min=1)


@torch.no_grad()
def covered_points(point_logits: Tensor, point_batch: Tensor, size: int) -> Tensor:
    """Return the masks that cover each point, N x Q bool; masks with few points cover nothing.

    If no mask of a sample has enough points, its first mask covers all of them.
    """
    inside = point_logits >= 0
    enough = sum_per_sample(inside, point_batch, size) >= MIN_POINTS
    first = F.one_hot(torch.zeros_like(point_batch), inside.shape[1]).bool()
    none_left = ~enough.any(-1)
    return (inside & enough[point_batch]) | (first & none_left[point_batch, None])


@torch.no_grad()
def eligible_masks(inside: Tensor, targets: Tensor, point_batch: Tensor, size: int) -> tuple[Tensor, Tensor]:
    """Return the masks that are clearly novel, and those that are clearly base: B x Q bool each.

    Args:
        inside: N x Q bool. targets: N int64, 1 base, 0 novel. point_batch: N int64.
        size: B.
    """
    number = sum_per_sample(inside, point_batch, size)
    novel = sum_per_sample(inside & (targets == 0)[:, None], point_batch, size)
    base = sum_per_sample(inside & (targets == 1)[:, None], point_batch, size)
    is_novel = (novel > NOVEL_RATIO * (number - novel)) & (novel > NOVEL_POINTS)
    return is_novel, ~is_novel & (base > BASE_RATIO * (number - base)) & (base > BASE_POINTS)


@torch.no_grad()
def mask_confidence(mask_logits: Tensor, frame_size: tuple[int, int], wanted: Tensor) -> Tensor:
    """Average each mask's probabilities above 0.5 on the frame grid: B x Q, 0 for a mask without pixels.

    Args:
        mask_logits: B x Q x h x w.
        wanted: B x Q bool, masks whose confidence is needed; others may be 0, which saves most of the work on a CPU.
    """

    def confidence(logits: Tensor) -> Tensor:
        resized = F.interpolate(logits, frame_size, mode="bilinear", align_corners=False)
        inside = resized > 0
        return torch.where(inside, resized.sigmoid(), 0).sum((-2, -1)) / inside.sum((-2, -1)).clamp(min=1)

    logits = at_least_float32(mask_logits)
    # selecting would wait for the device; samples are processed one by one, since resized masks are large
    if logits.is_cuda:
        return torch.cat([confidence(sample) for sample in logits.split(1)])
    result = logits.new_zeros(wanted.shape)
    if wanted.any():
        result[wanted] = torch.cat([confidence(some[None])[0] for some in logits[wanted].split(MASKS_AT_ONCE)])
    return result


@torch.no_grad()
def choose_masks(is_novel: Tensor, is_base: Tensor, confidence: Tensor) -> tuple[Tensor, Tensor]:
    """Choose the most confident masks that are clearly novel, and those that are clearly base.

    Args:
        is_novel, is_base: B x Q bool. confidence: B x Q.

    Returns:
        Queries, B x (novel + base) int64, and B x (novel + base) bool, true for those that were chosen.
    """
    queries = confidence.shape[1]
    chosen, valid = [], []
    for eligible, limit in ((is_novel, NOVEL_MASKS), (is_base, BASE_MASKS)):
        best = confidence.masked_fill(~eligible, -1).topk(min(limit, queries), dim=-1)
        chosen.append(best.indices)
        valid.append(best.values >= 0)
    return torch.cat(chosen, 1), torch.cat(valid, 1)
