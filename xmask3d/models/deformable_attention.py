"""Multi-scale deformable attention (arXiv 2010.04159)."""

import math
from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn


class DeformableAttention(nn.Module):
    """Attention in which every query samples every level at a few learned positions around its reference point."""

    def __init__(self, dim: int, *, heads: int = 8, levels: int = 3, points: int = 4) -> None:
        super().__init__()
        self.heads, self.levels, self.points = heads, levels, points
        self.sampling_offsets = nn.Linear(dim, heads * levels * points * 2)
        self.attention_weights = nn.Linear(dim, heads * levels * points)
        self.value_proj = nn.Linear(dim, dim)
        self.output_proj = nn.Linear(dim, dim)
        self._reset_parameters()

    def _reset_parameters(self) -> None:
        """Start with equal weights and, for each head, positions at growing distances in one direction."""
        angle = torch.arange(self.heads) * (2 * math.pi / self.heads)
        direction = torch.stack([angle.cos(), angle.sin()], dim=-1)
        direction = direction / direction.abs().amax(-1, keepdim=True)
        distance = torch.arange(1, self.points + 1)
        offsets = direction[:, None, None, :] * distance[None, None, :, None]
        nn.init.zeros_(self.sampling_offsets.weight)
        with torch.no_grad():
            self.sampling_offsets.bias.copy_(offsets.expand(-1, self.levels, -1, -1).flatten())
        nn.init.zeros_(self.attention_weights.weight)
        nn.init.zeros_(self.attention_weights.bias)
        for projection in (self.value_proj, self.output_proj):
            nn.init.xavier_uniform_(projection.weight)
            nn.init.zeros_(projection.bias)

    def forward(self, query: Tensor, reference: Tensor, memory: Tensor, sizes: Sequence[tuple[int, int]]) -> Tensor:
        """Attend to every level.

        Args:
            query: B x N x dim.
            reference: N x 2, the position (x, y) of each query in [0, 1], which is the same on every level.
            memory: B x M x dim, the concatenated levels, each in row order.
            sizes: height and width of each level; the areas add up to M.

        Returns:
            B x N x dim.
        """
        batch, count, dim = query.shape
        offsets = self.sampling_offsets(query).view(batch, count, self.heads, self.levels, self.points, 2)
        weights = self.attention_weights(query).view(batch, count, self.heads, self.levels * self.points).softmax(-1)
        values = self.value_proj(memory).view(batch, -1, self.heads, dim // self.heads)
        return self.output_proj(attend(values, offsets, weights, reference, sizes))


def attend(
    values: Tensor, offsets: Tensor, weights: Tensor, reference: Tensor, sizes: Sequence[tuple[int, int]]
) -> Tensor:
    """Sum, for every query, weighted samples of the values around its reference.

    Args:
        values: B x M x heads x size, the concatenated levels, each in row order.
        offsets: B x N x heads x levels x points x 2 (x, y), from the reference, in cells of the level.
        weights: B x N x heads x (levels * points).
        reference: N x 2, the position (x, y) of each query in [0, 1].
        sizes: height and width of each level; the areas add up to M.

    Returns:
        B x N x (heads * size).
    """
    batch, _, heads, size = values.shape
    count, points = offsets.shape[1], offsets.shape[4]
    # Filled on the offsets' device, because copying numbers to a GPU would wait for it.
    sides = [offsets.new_full((), side) for height, width in sizes for side in (width, height)]
    extent = torch.stack(sides).view(-1, 2)
    places = reference[:, None, None, None, :] + offsets / extent[:, None, :]
    # grid_sample expects [-1, 1] from edge to edge, and one image per head.
    grids = (2 * places - 1).permute(3, 0, 2, 1, 4, 5).flatten(1, 2)
    by_head = values.permute(0, 2, 3, 1).flatten(0, 1)
    levels = by_head.split([height * width for height, width in sizes], dim=-1)
    shares = weights.transpose(1, 2).flatten(0, 1).unsqueeze(1).split(points, dim=-1)
    # Positions keep full precision even where autocast has rounded the values.
    samples = [
        F.grid_sample(level.unflatten(-1, extents).to(grid.dtype), grid, padding_mode="zeros", align_corners=False)
        for level, extents, grid in zip(levels, sizes, grids, strict=True)
    ]
    attended = torch.stack([(x * share).sum(-1) for x, share in zip(samples, shares, strict=True)]).sum(0)
    return attended.view(batch, heads * size, count).transpose(1, 2)
