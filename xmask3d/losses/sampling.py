"""Sampling of masks and label maps at points of the unit square."""

from __future__ import annotations

from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor

# Function that returns a tensor of a given shape with independent uniform numbers in [0, 1).
Uniform = Callable[[tuple[int, ...]], Tensor]


def sample_logits(maps: Tensor, points: Tensor) -> Tensor:
    """Sample maps at points, bilinearly, with zeros outside.

    Args:
        maps: M x Q x h x w.
        points: M x P x 2 as (x, y) in [0, 1], corners of the map at 0 and 1.

    Returns:
        M x Q x P.
    """
    grid = (2 * points - 1)[:, None]
    return F.grid_sample(maps, grid.to(maps.dtype), mode="bilinear", align_corners=False).squeeze(2)


def sample_labels(label_maps: Tensor, image: Tensor, points: Tensor) -> tuple[Tensor, Tensor]:
    """Return the four labels around each point and their bilinear weights.

    The binary mask of a class, sampled at a point, is the sum of the weights of the labels of that class, so no binary
    mask has to be made.

    Args:
        label_maps: B x H x W int64.
        image: M int64, index of the label map for each row of points.
        points: M x P x 2 as (x, y) in [0, 1].

    Returns:
        labels M x P x 4 int64, and weights M x P x 4, 0 outside the map.
    """
    height, width = label_maps.shape[-2:]
    # Filled on the points' device, because copying numbers to a GPU would wait for it.
    extent = torch.stack([points.new_full((), width), points.new_full((), height)])
    position = points * extent - 0.5
    low = position.floor()
    share = position - low
    across = torch.stack([1 - share[..., 0], share[..., 0]], -1)
    down = torch.stack([1 - share[..., 1], share[..., 1]], -1)
    offsets = torch.arange(2, device=points.device)
    columns, rows = low[..., :1].long() + offsets, low[..., 1:].long() + offsets
    across = across * ((columns >= 0) & (columns < width))
    down = down * ((rows >= 0) & (rows < height))
    start = (image[:, None, None] * height + rows.clamp(0, height - 1)) * width
    cells = start[..., :, None] + columns.clamp(0, width - 1)[..., None, :]
    labels = label_maps.reshape(-1).index_select(0, cells.flatten()).view(*points.shape[:-1], 4)
    return labels, (down[..., :, None] * across[..., None, :]).flatten(-2)


def present_labels(label_maps: Tensor, num_labels: int) -> Tensor:
    """Find which of the labels 0..num_labels - 1 each map contains: B x H x W int64 to B x num_labels bool."""
    present = torch.zeros(len(label_maps), num_labels, dtype=torch.bool, device=label_maps.device)
    return present.scatter_(1, label_maps.flatten(1), True)
