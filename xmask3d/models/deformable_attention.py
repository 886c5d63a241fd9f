"""Multi-scale deformable attention (arXiv 2010.04159)."""

import math
from collections.abc import Sequence

import torch
from torch import Tensor, nn

from xmask3d.native.deformable import attend, attend_plainly, usable


class DeformableAttention(nn.Module):
    """Every query samples a few learned places of every level around its reference point."""

    def __init__(self, dim: int, *, heads: int = 8, levels: int = 3, points: int = 4) -> None:
        super().__init__()
        self.heads, self.levels, self.points = heads, levels, points
        self.sampling_offsets = nn.Linear(dim, heads * levels * points * 2)
        self.attention_weights = nn.Linear(dim, heads * levels * points)
        self.value_proj = nn.Linear(dim, dim)
        self.output_proj = nn.Linear(dim, dim)
        self._reset_parameters()

    def _reset_parameters(self) -> None:
        """Start with equal weights and, for each head, places along one direction at growing distance."""
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
        """
        Args:
            query: B x N x dim.
            reference: N x 2, the place (x, y) of each query in [0, 1], the same on every level.
            memory: B x M x dim, the levels one after the other, each row by row.
            sizes: height and width of each level; their products sum to M.

        Returns:
            B x N x dim.
        """
        batch, count, dim = query.shape
        offsets = self.sampling_offsets(query).view(batch, count, self.heads, self.levels, self.points, 2)
        weights = self.attention_weights(query).view(batch, count, self.heads, self.levels * self.points).softmax(-1)
        values = self.value_proj(memory).view(batch, -1, self.heads, dim // self.heads)
        function = attend if usable(values, offsets, weights, reference) else attend_plainly
        return self.output_proj(function(values, offsets, weights, reference, sizes))
