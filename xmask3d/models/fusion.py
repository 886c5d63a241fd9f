"""Fusion of masks and points: the owner of each point, and its fused feature (paper section 3.3, Eq. 4)."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from xmask3d.models.gate import allowed_classes, gate, is_gateable
from xmask3d.models.outputs import Fused, gather_by_owner
from xmask3d.models.similarity import at_least_float32

if TYPE_CHECKING:
    from xmask3d.data.batch import Batch
    from xmask3d.models.outputs import Outputs


class Fuser(nn.Module):
    """Linear map of a point's 2D and 3D features, side by side (paper Eq. 4)."""

    def __init__(self, dim: int, frame_size: tuple[int, int] = (240, 320)) -> None:
        """Build the linear map.

        Args:
            dim: D, size of the 2D feature, of the 3D feature and of the result.
            frame_size: height and width of the grid that the points' pixels are on.
        """
        super().__init__()
        self.frame_size = frame_size
        self.linear = nn.Linear(2 * dim, dim)

    def forward(self, points_3d: Tensor, embeddings: Tensor, owner: Tensor, point_batch: Tensor) -> Tensor:
        """Fuse the features of points that a mask owns; other points keep their 3D feature.

        The 2D half is projected once per mask rather than once per point, which gives the same sum in a different
        order.

        Args:
            points_3d: N x D. embeddings: B x Q x D. owner: N int64, -1 for none. point_batch: N int64.

        Returns:
            N x D.
        """
        weight_2d, weight_3d = self.linear.weight.chunk(2, dim=1)
        if not torch.is_autocast_enabled(points_3d.device.type):
            # Features may be in half precision after a forward under autocast.
            points_3d, embeddings = points_3d.to(weight_3d.dtype), embeddings.to(weight_2d.dtype)
        projected = F.linear(embeddings, weight_2d)
        fused = F.linear(points_3d, weight_3d, self.linear.bias) + gather_by_owner(projected, owner, point_batch)
        return torch.where((owner >= 0)[:, None], fused, points_3d.to(fused.dtype))


def fuse_training(fuser: Fuser, outputs: Outputs, batch: Batch, force_first: bool = False) -> Fused:
    """Assign points to masks as in training: all masks take part, scored by their largest class probability.

    Args:
        force_first: assign the first point of a sample without covered points to its first mask, as published.
    """
    point_logits = sample_at_points(outputs.mask_logits, batch.pixels, batch.point_batch, fuser.frame_size)
    scores, keep = training_scores(outputs.class_logits[0])
    owner = own_points(point_logits, scores, keep, batch.point_batch)
    if force_first:
        owner = _force_first(owner, outputs.mask_logits, scores, keep, batch.point_batch, fuser.frame_size)
    return _fuse(fuser, outputs, batch, owner, point_logits)


def fuse_inference(fuser: Fuser, outputs: Outputs, batch: Batch, novel: Tensor) -> Fused:
    """Assign points to masks as at test time, see `inference_scores`.

    Args:
        outputs: outputs of a forward with the K test texts.
        novel: K bool, true for novel classes. Masks are not gated if all or none of the classes are novel.
    """
    point_logits = sample_at_points(outputs.mask_logits, batch.pixels, batch.point_batch, fuser.frame_size)
    scores, keep = inference_scores(
        outputs.class_logits[0], point_logits, outputs.binary_logits, batch.point_batch, novel
    )
    owner = own_points(point_logits, scores, keep, batch.point_batch)
    return _fuse(fuser, outputs, batch, owner, point_logits)


def training_scores(class_logits: Tensor) -> tuple[Tensor, Tensor]:
    """Return the scores of masks, B x Q, and the masks that take part, B x Q bool: all of them."""
    scores = at_least_float32(class_logits.detach()).softmax(-1).amax(-1)
    return scores, torch.ones_like(scores, dtype=torch.bool)


@torch.no_grad()
def inference_scores(
    class_logits: Tensor, point_logits: Tensor, binary_logits: Tensor, point_batch: Tensor, novel: Tensor
) -> tuple[Tensor, Tensor]:
    """Score the masks as at test time.

    A mask that covers no point takes no part. A mask is base if the mean base probability of its points exceeds one
    half; it may then only be a base class or null. All other masks may only be a novel class.

    Args:
        class_logits: B x Q x (K + 1), null last.
        point_logits: N x Q, of the masks at the points. binary_logits: N. point_batch: N int64.
        novel: K bool.

    Returns:
        Scores B x Q, and the masks that take part, B x Q bool.
    """
    inside, size = point_logits > 0, len(class_logits)
    counts = sum_per_sample(inside, point_batch, size)
    probability = at_least_float32(binary_logits).sigmoid()[:, None]
    is_base = sum_per_sample(inside * probability, point_batch, size) > 0.5 * counts
    return gated_scores(class_logits, is_base, novel), counts > 0


def gated_scores(class_logits: Tensor, is_base: Tensor, novel: Tensor) -> Tensor:
    """Return the largest class probability of every query among the classes that the gate allows.

    Args:
        class_logits: B x Q x (K + 1), null last.
        is_base: B x Q bool; a base query may be a base class or null, any other a novel class.
        novel: K bool.

    Returns:
        B x Q.
    """
    null = is_base[..., None] | ~is_gateable(novel)
    allowed = torch.cat([allowed_classes(is_base, novel), null], -1)
    return gate(at_least_float32(class_logits), allowed).softmax(-1).amax(-1)


@torch.no_grad()
def own_points(point_logits: Tensor, scores: Tensor, keep: Tensor, point_batch: Tensor) -> Tensor:
    """Find the mask that owns each point: the one of largest score times mask probability, if it covers the point.

    This rule makes masks disjoint on the frame; it is evaluated at the points' pixels only.

    Args:
        point_logits: N x Q mask logits at the points.
        scores: B x Q. keep: B x Q bool, masks that take part.

    Returns:
        N int64, -1 where no mask owns the point.
    """
    weights = scores.to(point_logits.dtype).masked_fill(~keep, -1)
    best, owner = (weights[point_batch] * point_logits.sigmoid()).max(-1)
    covers = point_logits.gather(1, owner[:, None]).squeeze(1) >= 0
    return torch.where(covers & (best >= 0), owner, -1)


@torch.no_grad()
def sample_at_points(mask_logits: Tensor, pixels: Tensor, point_batch: Tensor, frame_size: tuple[int, int]) -> Tensor:
    """Sample mask logits at the points' pixels, as if the masks were resized bilinearly to the frame grid.

    Args:
        mask_logits: B x Q x h x w.
        pixels: N x 2 int64 (row, column) on the frame grid. point_batch: N int64.
        frame_size: height and width of the frame grid.

    Returns:
        N x Q, float32 or wider.
    """
    logits = at_least_float32(mask_logits)
    height, width = logits.shape[-2:]
    table = logits.permute(0, 2, 3, 1).reshape(-1, logits.shape[1])
    top, bottom, down = _neighbours(pixels[:, 0], frame_size[0], height, logits.dtype)
    left, right, across = _neighbours(pixels[:, 1], frame_size[1], width, logits.dtype)

    def row(y: Tensor) -> Tensor:
        start = (point_batch * height + y) * width
        return torch.lerp(table.index_select(0, start + left), table.index_select(0, start + right), across[:, None])

    return torch.lerp(row(top), row(bottom), down[:, None])


def own_pixels(mask_logits: Tensor, scores: Tensor, keep: Tensor, frame_size: tuple[int, int]) -> Tensor:
    """Find the owner of every pixel by the rule of `own_points`: B x h x w int64, -1 where there is none.

    Args:
        mask_logits: B x Q x height x width. scores: B x Q. keep: B x Q bool.
        frame_size: h and w.
    """
    size, (height, width), device = len(mask_logits), frame_size, mask_logits.device
    rows, columns = torch.meshgrid(
        torch.arange(height, device=device), torch.arange(width, device=device), indexing="ij"
    )
    pixels = torch.stack([rows, columns], -1).view(-1, 2).repeat(size, 1)
    pixel_batch = torch.arange(size, device=device).repeat_interleave(height * width)
    owner = own_points(sample_at_points(mask_logits, pixels, pixel_batch, frame_size), scores, keep, pixel_batch)
    return owner.view(size, height, width)


def sum_per_sample(values: Tensor, point_batch: Tensor, size: int) -> Tensor:
    """Sum the rows of each sample: N x C to size x C, float32 or wider.

    This is a matrix product with a row of ones per sample; unlike scattered additions it is repeatable on a GPU.
    """
    values = at_least_float32(values)
    members = point_batch == torch.arange(size, device=values.device)[:, None]
    with torch.autocast(values.device.type, enabled=False):
        return members.to(values.dtype) @ values


def _neighbours(index: Tensor, length: int, cells: int, dtype: torch.dtype) -> tuple[Tensor, Tensor, Tensor]:
    """Return the two cells on either side of a pixel's centre, clamped at the edge, and the weight of the second."""
    position = ((index.to(dtype) + 0.5) * (cells / length) - 0.5).clamp(min=0)
    first = position.floor().long().clamp(max=cells - 1)
    return first, (first + 1).clamp(max=cells - 1), position - first


@torch.no_grad()
def distinct_points(point_to_voxel: Tensor, mask: Tensor) -> tuple[Tensor, Tensor]:
    """Find points of the same voxel and mask, which share a feature; this saves two thirds of the work.

    Args:
        point_to_voxel: N int64. mask: N int64, the mask that owns the point, numbered over all samples; -1 for none.

    Returns:
        U int64, one point for each pair of voxel and mask that occurs; and N int64, the pair of each point. On a GPU
        every point makes a pair of its own, since finding the pairs would wait for the device.
    """
    points = torch.arange(len(mask), device=mask.device)
    if mask.is_cuda or not len(mask):
        return points, points
    pairs, point_to_row = torch.unique(point_to_voxel * (mask.max() + 2) + mask + 1, return_inverse=True)
    return torch.empty_like(pairs).scatter_(0, point_to_row, points), point_to_row


@torch.no_grad()
def _force_first(
    owner: Tensor, mask_logits: Tensor, scores: Tensor, keep: Tensor, point_batch: Tensor, frame_size: tuple[int, int]
) -> Tensor:
    """Assign the first point of every uncovered sample to the first mask that owns a pixel, if any does."""
    owner = owner.clone()
    for b in range(len(mask_logits)):
        mine = (point_batch == b).nonzero().squeeze(1)
        if not len(mine) or (owner[mine] >= 0).any():
            continue
        pixels = own_pixels(mask_logits[b : b + 1], scores[b : b + 1], keep[b : b + 1], frame_size)
        if (pixels >= 0).any():
            owner[mine[0]] = pixels[pixels >= 0].min()
    return owner


def _fuse(fuser: Fuser, outputs: Outputs, batch: Batch, owner: Tensor, point_logits: Tensor) -> Fused:
    queries = outputs.mask_embeddings.shape[1]
    mask = torch.where(owner >= 0, batch.point_batch * queries + owner, -1)
    row_to_point, point_to_row = distinct_points(outputs.point_to_voxel, mask)
    rows = fuser(
        outputs.voxels_3d.index_select(0, outputs.point_to_voxel[row_to_point]),
        outputs.mask_embeddings,
        owner[row_to_point],
        batch.point_batch[row_to_point],
    )
    return Fused(owner, batch.point_batch, point_logits, outputs.mask_embeddings, rows, point_to_row, row_to_point)
