"""Convolutions of large maps, a tile of rows at a time.

A convolution of a 512 x 512 map of 128 channels (128 MiB) brings its whole input and result into an order of its own,
and the norm and the activation before it take a map each. In tiles all of that is a few rows; only the mean and the
variance of a norm look at the whole map. Without gradient and on the CPU only: a GPU has its memory for this.
"""

from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from xmask3d.native import winograd

# Bytes of a map from which on tiles are worth their calls, and of the tile that is convolved at a time.
_WORTH, _TILE_BYTES = 64 << 20, 4 << 20


def worthwhile(x: Tensor, channels: int | None = None) -> bool:
    """Whether a map, B x C x H x W, is one to take in tiles; where it gets other `channels`, by their number."""
    size = x.nbytes if channels is None else x[:, :1].numel() * channels * x.itemsize
    return x.is_cpu and size >= _WORTH and not torch.is_grad_enabled()


def convolution(
    conv: nn.Conv2d, x: Tensor, before: Callable[[Tensor], Tensor] | None = None, *, padding: tuple[int, ...] = ()
) -> Tensor:
    """`conv(before(x))`, B x C x H x W to B x C' x H' x W'.

    Args:
        conv: without groups and dilation.
        x: the map.
        before: a function of every number of the map by itself, into which it may write.
        padding: zeros left, right, above and below instead of `conv`'s own.
    """
    pad_y, pad_x = (int(size) for size in conv.padding)
    left, right, above, below = padding or (pad_x, pad_x, pad_y, pad_y)
    (kernel, kernel_x), (stride, stride_x) = conv.kernel_size, conv.stride
    batch, _, height, width = x.shape
    inside = min(left, right)  # zeros that need no copy
    rows_out = (height + above + below - kernel) // stride + 1
    columns_out = (width + left + right - kernel_x) // stride_x + 1
    channels_last = x.is_contiguous(memory_format=torch.channels_last)
    layout = torch.channels_last if channels_last else torch.contiguous_format
    size = (batch, conv.out_channels, rows_out, columns_out)
    out = torch.empty(size, dtype=x.dtype, device=x.device, memory_format=layout)
    rows = max(_TILE_BYTES // max(x[:, :, 0].nbytes, out[:, :, 0].nbytes), 1)
    fewer = stride == 1 and (left, right) == (1, 1) and not channels_last and winograd.worthwhile(x, conv.weight)
    filters = winograd.Filters(conv.weight) if fewer else None
    rows = -(-rows // winograd.TILE) * winograd.TILE if fewer else rows
    for first in range(0, rows_out, rows):
        last = min(first + rows, rows_out)
        start, stop = first * stride - above, (last - 1) * stride + kernel - above
        tile = x[:, :, max(start, 0) : min(stop, height)]
        if before is not None:
            tile = before(tile.clone())
        if filters:
            winograd.convolve(tile, filters, conv.bias, out[:, :, first:last], above=max(-start, 0))
            continue
        edges = (left - inside, right - inside, max(-start, 0), max(stop - height, 0))
        if any(edges):
            tile = F.pad(tile, edges)
        out[:, :, first:last] = F.conv2d(tile, conv.weight, conv.bias, conv.stride, (0, inside))
    return out


def normalisation(norm: nn.GroupNorm, x: Tensor) -> Callable[[Tensor], Tensor]:
    """A function that gives a tile of `x`, B x C x H' x W, the norm that `norm(x)` would give it; it writes into it."""
    mean, variance = _moments(x, norm.num_groups)
    scale = (variance + norm.eps).rsqrt()
    per_group = norm.num_channels // norm.num_groups
    scale, shift = (y.repeat_interleave(per_group, 1) for y in (scale, -mean * scale))
    if norm.weight is not None:
        scale, shift = scale * norm.weight, shift * norm.weight + norm.bias
    # A mean far from 0 leaves a small difference of scaled values and shift: only what is left may be rounded.
    wide = mean.dtype
    scale, shift = (y[:, :, None, None].to(wide) for y in (scale, shift))
    return lambda tile: tile.copy_(tile.to(wide).mul_(scale).add_(shift))


def residual_block(block: nn.Module, x: Tensor, time: Tensor | None) -> Tensor:
    """`block(x, time)` of a plain `ResnetBlock2D`."""

    def activated(norm: nn.GroupNorm, x: Tensor) -> Callable[[Tensor], Tensor]:
        normalise = normalisation(norm, x)
        return lambda tile: F.silu(normalise(tile), inplace=True)

    hidden = convolution(block.conv1, x, activated(block.norm1, x))
    if block.time_emb_proj is not None:
        hidden += block.time_emb_proj(F.silu(time))[:, :, None, None]
    hidden = convolution(block.conv2, hidden, activated(block.norm2, hidden))
    return hidden.add_(x if block.conv_shortcut is None else convolution(block.conv_shortcut, x))


def _moments(x: Tensor, groups: int) -> tuple[Tensor, Tensor]:
    """Mean and variance of each group of channels, B x groups in float32 or wider, from those of tiles."""
    rows = max(_TILE_BYTES // x[:, :, 0].nbytes, 1)
    wide = torch.promote_types(x.dtype, torch.float32)
    means, variances, weights = [], [], []
    for tile in x.split(rows, 2):
        values = tile.to(wide).reshape(len(x), groups, -1)
        mean = values.mean(-1, keepdim=True)
        means.append(mean[..., 0])
        variances.append((values - mean).square_().mean(-1))  # a fraction of the time of torch.var_mean
        weights.append(tile.shape[2] / x.shape[2])
    of_tiles, within = torch.stack(means), torch.stack(variances)
    share = of_tiles.new_tensor(weights)[:, None, None]
    mean = (of_tiles * share).sum(0)
    return mean, ((within + (of_tiles - mean).square()) * share).sum(0)
