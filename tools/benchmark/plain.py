"""Plain implementation, in the manner of the published system: loops over queries, classes, images and layers.

Written from the description of what that system computes, for comparison only. Results are those of this package.
"""

from collections.abc import Sequence

import numpy as np
import torch
import torch.nn.functional as F
from scipy.optimize import linear_sum_assignment
from torch import Tensor

from xmask3d.losses.matcher import Matching
from xmask3d.losses.sampling import Uniform, sample_logits
from xmask3d.models.mask_decoder import MaskDecoder, MaskPrediction, pool_under_masks


def decode_masks(decoder: MaskDecoder, mask_features: Tensor, memories: Sequence[Tensor]) -> list[MaskPrediction]:
    """Decode the predictions of every layer, wanted or not, with the masks pooled twice for each."""
    predictions = decoder(mask_features, memories, auxiliary=True)
    for prediction in predictions:
        pool_under_masks(mask_features, prediction.mask_logits)
    return predictions


def class_logits(prediction: MaskPrediction, embeddings: Tensor) -> Tensor:
    """Compute cosine logits, B x Q x n, the best of each class's one name taken class by class."""
    similarity = F.normalize(prediction.embeddings, dim=-1) @ F.normalize(embeddings, dim=-1).T
    scaled = prediction.temperature * similarity
    return torch.stack([scaled[..., [label]].max(-1).values for label in range(scaled.shape[-1])], -1)


def own_points(
    mask_logits: Tensor, scores: Tensor, keep: Tensor, pixels: Tensor, point_batch: Tensor, frame_size: tuple[int, int]
) -> Tensor:
    """Return the owner of each point, N int64, -1 for none: disjoint masks on the complete frame, query by query.

    Args:
        mask_logits: B x Q x h x w. scores: B x Q. keep: B x Q bool.
        pixels: N x 2. point_batch: N int64.
    """
    owner = torch.full((len(pixels),), -1)
    for sample, logits in enumerate(mask_logits.detach()):
        probability = F.interpolate(logits[None], frame_size, mode="bilinear", align_corners=False)[0].sigmoid()
        kept = torch.nonzero(keep[sample])[:, 0]
        if not len(kept):
            continue
        winner = (scores[sample, kept, None, None] * probability[kept]).argmax(0)
        rows = torch.nonzero(point_batch == sample)[:, 0]
        for rank, query in enumerate(kept.tolist()):
            mask = (winner == rank) & (probability[query] >= 0.5)
            area, own_area = mask.sum().item(), (probability[query] >= 0.5).sum().item()
            if area and own_area and (winner == rank).sum().item():
                inside = mask[pixels[rows, 0], pixels[rows, 1]]
                owner[rows[inside]] = query
    return owner


def covered(mask_logits: Tensor, pixels: Tensor, frame_size: tuple[int, int]) -> Tensor:
    """Find which points each mask of one view, Q x h x w, covers: Q x N bool, on masks resized to the frame."""
    masks = F.interpolate(mask_logits[None], frame_size, mode="bilinear", align_corners=False)[0].sigmoid() > 0.5
    return torch.stack([mask[pixels[:, 0], pixels[:, 1]] for mask in masks])


def match(
    mask_logits: Sequence[Tensor],
    logits_of_classes: Sequence[Tensor],
    label_maps: Tensor,
    *,
    class_weight: float,
    mask_weight: float,
    dice_weight: float,
    num_points: int,
    uniform: Uniform,
) -> Matching:
    """Match as `xmask3d.losses.matcher.match`, image by image and layer by layer, with a binary mask per target."""
    all_points = uniform((len(mask_logits), len(label_maps), num_points, 2))
    found = []
    for masks, classes, points_of_layer in zip(mask_logits, logits_of_classes, all_points, strict=True):
        rows: list[np.ndarray] = []
        for sample, points in enumerate(points_of_layer):
            label_map = label_maps[sample].cpu().numpy()
            labels = np.unique(label_map)
            binary = torch.from_numpy(np.stack([label_map == label for label in labels])).to(masks.dtype)
            target = sample_logits(binary[:, None], points.expand(len(labels), -1, -1))[:, 0]
            logits = sample_logits(masks[sample].detach()[:, None], points.expand(masks.shape[1], -1, -1))[:, 0]
            probability = logits.sigmoid()
            positive, negative = F.softplus(-logits), F.softplus(logits)
            entropy = (positive @ target.T + negative @ (1 - target).T) / num_points
            dice = 1 - (2 * probability @ target.T + 1) / (probability.sum(1)[:, None] + target.sum(1) + 1)
            of_class = classes[sample].detach().softmax(-1)[:, torch.from_numpy(labels)]
            cost = (mask_weight * entropy + dice_weight * dice - class_weight * of_class).cpu().numpy()
            query, column = linear_sum_assignment(cost)
            rows.append(np.stack([np.full_like(query, sample), query, labels[column]]))
        found.append(np.concatenate(rows, 1))
    image, query, label = torch.from_numpy(np.stack(found, 1))
    return Matching(image, query, label)
