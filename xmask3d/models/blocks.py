"""Layers shared by several parts."""

import math
from itertools import pairwise

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from xmask3d.native import winograd


class NormedConv2d(nn.Module):
    """Convolution without bias that keeps the size, followed by a group normalisation."""

    def __init__(self, in_channels: int, out_channels: int, kernel_size: int, groups: int = 32) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.empty(out_channels, in_channels, kernel_size, kernel_size))
        nn.init.kaiming_uniform_(self.weight, a=1)
        self.norm = nn.GroupNorm(groups, out_channels)

    def forward(self, x: Tensor) -> Tensor:
        """Convolve B x in_channels x H x W to B x out_channels x H x W."""
        if self.weight.shape[-1] == 3:
            return self.norm(winograd.conv2d(x, self.weight))
        return self.norm(F.conv2d(x, self.weight, padding=self.weight.shape[-1] // 2))


class MLP(nn.Module):
    """Linear layers with ReLU between them."""

    def __init__(self, *sizes: int) -> None:
        """Build the layers; `sizes` are those of the input, the hidden layers and the output."""
        super().__init__()
        self.layers = nn.ModuleList(nn.Linear(size, following) for size, following in pairwise(sizes))

    def forward(self, x: Tensor) -> Tensor:
        """Map ... x sizes[0] to ... x sizes[-1]."""
        *hidden, last = self.layers
        for layer in hidden:
            x = F.relu(layer(x))
        return last(x)


def sine_position_encoding(
    height: int, width: int, dim: int, *, device: torch.device, dtype: torch.dtype, temperature: float = 1e4
) -> Tensor:
    """Return sines and cosines of the row and the column, both scaled to (0, 2 pi].

    Returns:
        dim x height x width: the first half of the channels encodes the row, the second half the column; in each half
        sine and cosine alternate over falling frequencies.
    """
    per_axis = dim // 2
    exponent = 2 * (torch.arange(per_axis, device=device) // 2) / per_axis
    wavelength = temperature**exponent
    axes = []
    for size in (height, width):
        position = torch.arange(1, size + 1, device=device, dtype=torch.float32)
        angle = (position / (size + 1e-6) * 2 * math.pi)[:, None] / wavelength
        axes.append(torch.stack([angle[:, 0::2].sin(), angle[:, 1::2].cos()], dim=-1).flatten(1))
    rows = axes[0].T[:, :, None].expand(-1, -1, width)
    columns = axes[1].T[:, None, :].expand(-1, height, -1)
    return torch.cat([rows, columns]).to(dtype)
