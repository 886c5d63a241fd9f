"""Pixel decoder: from the feature pyramid to mask features and memories (arXiv 2112.01527, section 3.2.3)."""

from collections.abc import Sequence
from typing import NamedTuple, cast

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from xmask3d.models.blocks import NormedConv2d, sine_position_encoding
from xmask3d.models.deformable_attention import DeformableAttention


class PixelFeatures(NamedTuple):
    """Inputs of the mask decoder.

    Attributes:
        mask_features: B x mask_dim x H x W at the pyramid's finest stride.
        memories: B x dim x h x w for each level, coarsest first.
    """

    mask_features: Tensor
    memories: list[Tensor]


class EncoderLayer(nn.Module):
    """Deformable self-attention and a feed-forward network, each followed by a norm."""

    def __init__(self, dim: int, ffn_dim: int, *, heads: int, levels: int, points: int) -> None:
        super().__init__()
        self.self_attn = DeformableAttention(dim, heads=heads, levels=levels, points=points)
        self.norm1 = nn.LayerNorm(dim)
        self.linear1 = nn.Linear(dim, ffn_dim)
        self.linear2 = nn.Linear(ffn_dim, dim)
        self.norm2 = nn.LayerNorm(dim)

    def forward(self, x: Tensor, position: Tensor, reference: Tensor, sizes: Sequence[tuple[int, int]]) -> Tensor:
        """Update B x M x dim; `position` (M x dim) is added to the query only. See the attention for the rest."""
        x = self.norm1(x + self.self_attn(x + position, reference, x, sizes))
        return self.norm2(x + self.linear2(F.relu(self.linear1(x))))


class DeformableEncoder(nn.Module):
    """Encoder whose layers let the levels of a pyramid attend to each other."""

    def __init__(self, dim: int, ffn_dim: int, *, layers: int, heads: int, levels: int, points: int) -> None:
        super().__init__()
        self.level_embed = nn.Parameter(torch.randn(levels, dim))
        self.encoder = nn.Module()
        self.encoder.layers = nn.ModuleList(
            EncoderLayer(dim, ffn_dim, heads=heads, levels=levels, points=points) for _ in range(layers)
        )

    def forward(self, maps: Sequence[Tensor]) -> list[Tensor]:
        """Update the levels, B x dim x h x w each."""
        sizes = [(x.shape[-2], x.shape[-1]) for x in maps]
        x = torch.cat([level.flatten(2) for level in maps], dim=-1).transpose(1, 2)
        position = torch.cat([self._position(size, index, x) for index, size in enumerate(sizes)])
        reference = torch.cat([_cell_centres(*size, like=x) for size in sizes])
        for layer in self.encoder.get_submodule("layers").children():
            x = layer(x, position, reference, sizes)
        parts = x.transpose(1, 2).split([height * width for height, width in sizes], dim=-1)
        return [part.unflatten(-1, size) for part, size in zip(parts, sizes, strict=True)]

    def _position(self, size: tuple[int, int], level: int, like: Tensor) -> Tensor:
        encoding = sine_position_encoding(*size, like.shape[-1], device=like.device, dtype=like.dtype)
        return encoding.flatten(1).T + self.level_embed[level]


class PixelDecoder(nn.Module):
    """Pixel decoder: deformable attention over the coarse levels, then one top-down step to the finest level."""

    def __init__(
        self,
        in_channels: int = 512,
        *,
        dim: int = 256,
        mask_dim: int = 256,
        ffn_dim: int = 1024,
        layers: int = 6,
        heads: int = 8,
        points: int = 4,
        levels: int = 3,
        groups: int = 32,
    ) -> None:
        """Build the layers.

        Args:
            in_channels: channels of every level of the pyramid.
            dim: channels of the memories.
            mask_dim: channels of the mask features.
            ffn_dim, layers, heads, points: sizes of the deformable encoder.
            levels: number of levels that the encoder reads: all of the pyramid but the finest.
            groups: groups of the group normalisations.
        """
        super().__init__()
        self.input_proj = nn.ModuleList(
            nn.Sequential(nn.Conv2d(in_channels, dim, 1), nn.GroupNorm(groups, dim)) for _ in range(levels)
        )
        self.transformer = DeformableEncoder(dim, ffn_dim, layers=layers, heads=heads, levels=levels, points=points)
        self.adapter_1 = NormedConv2d(in_channels, dim, 1, groups)
        self.layer_1 = NormedConv2d(dim, dim, 3, groups)
        self.mask_features = nn.Conv2d(dim, mask_dim, 1)
        nn.init.kaiming_uniform_(self.mask_features.weight, a=1)
        projections = [module for module in self.input_proj.modules() if isinstance(module, nn.Conv2d)]
        for projection in projections:
            nn.init.xavier_uniform_(projection.weight)
        for layer in (self.mask_features, *projections):
            nn.init.zeros_(cast(Tensor, layer.bias))

    def forward(self, pyramid: Sequence[Tensor]) -> PixelFeatures:
        """Decode the pyramid.

        Args:
            pyramid: s2 ... s5, finest first, each B x in_channels x h x w; it has one more level than the encoder
                reads.
        """
        finest, *coarse = pyramid
        maps = [project(x) for project, x in zip(self.input_proj, reversed(coarse), strict=True)]
        memories = self.transformer(maps)
        lateral = self.adapter_1(finest)
        upsampled = F.interpolate(memories[-1], lateral.shape[-2:], mode="bilinear", align_corners=False)
        fine = F.relu(self.layer_1(lateral + upsampled))
        return PixelFeatures(self.mask_features(fine), memories)


def _cell_centres(height: int, width: int, like: Tensor) -> Tensor:
    """Return (height * width) x 2 centres (x, y) of the cells of a grid that spans [0, 1], row by row."""
    y = (torch.arange(height, device=like.device, dtype=like.dtype) + 0.5) / height
    x = (torch.arange(width, device=like.device, dtype=like.dtype) + 0.5) / width
    return torch.stack([x.repeat(height), y.repeat_interleave(width)], dim=-1)
