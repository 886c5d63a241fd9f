"""Convolutions of large maps, a band of rows at a time.

A convolution of a 512 x 512 map of 128 channels (128 MiB) brings its whole input and result into an order of its own,
and the norm and the activation before it take a map each. In bands all of that is a few rows; only the mean and the
variance of a norm look at the whole map. Without gradient and on the CPU only: a GPU has its memory for this.
"""

from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from xmask3d.native import winograd

# Bytes of a map from which on bands are worth their calls, and of the band that is convolved at a time.
_WORTH, _BAND = 64 << 20, 4 << 20


def worthwhile(x: Tensor, channels: int | None = None) -> bool:
    """Whether a map, B x C x H x W, is one to take in bands; where it gets other `channels`, by their number."""
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
    rows = max(_BAND // max(x[:, :, 0].nbytes, out[:, :, 0].nbytes), 1)
    fewer = stride == 1 and (left, right) == (1, 1) and not channels_last and winograd.worthwhile(x, conv.weight)
    filters = winograd.Filters(conv.weight) if fewer else None
    rows = -(-rows // winograd.TILE) * winograd.TILE if fewer else rows
    for first in range(0, rows_out, rows):
        last = min(first + rows, rows_out)
        start, stop = first * stride - above, (last - 1) * stride + kernel - above
        band = x[:, :, max(start, 0) : min(stop, height)]
        if before is not None:
            band = before(band.clone())
        if filters:
            winograd.convolve(band, filters, conv.bias, out[:, :, first:last], above=max(-start, 0))
            continue
        edges = (left - inside, right - inside, max(-start, 0), max(stop - height, 0))
        if any(edges):
            band = F.pad(band, edges)
        out[:, :, first:last] = F.conv2d(band, conv.weight, conv.bias, conv.stride, (0, inside))
    return out


def normalisation(norm: nn.GroupNorm, x: Tensor) -> Callable[[Tensor], Tensor]:
    """A function that gives a band of `x`, B x C x H' x W, the norm that `norm(x)` would give it; it writes into it."""
    mean, variance = _moments(x, norm.num_groups)
    scale = (variance + norm.eps).rsqrt()
    per_group = norm.num_channels // norm.num_groups
    scale, shift = (y.repeat_interleave(per_group, 1) for y in (scale, -mean * scale))
    if norm.weight is not None:
        scale, shift = scale * norm.weight, shift * norm.weight + norm.bias
    # A mean far from 0 leaves a small difference of scaled values and shift: only what is left may be rounded.
    wide = mean.dtype
    scale, shift = (y[:, :, None, None].to(wide) for y in (scale, shift))
    return lambda band: band.copy_(band.to(wide).mul_(scale).add_(shift))


def residual_block(block: nn.Module, x: Tensor, time: Tensor | None) -> Tensor:
    """`block(x, time)` of a plain `ResnetBlock2D`."""

    def activated(norm: nn.GroupNorm, x: Tensor) -> Callable[[Tensor], Tensor]:
        normalise = normalisation(norm, x)
        return lambda band: F.silu(normalise(band), inplace=True)

    hidden = convolution(block.conv1, x, activated(block.norm1, x))
    if block.time_emb_proj is not None:
        hidden += block.time_emb_proj(F.silu(time))[:, :, None, None]
    hidden = convolution(block.conv2, hidden, activated(block.norm2, hidden))
    return hidden.add_(x if block.conv_shortcut is None else convolution(block.conv_shortcut, x))


def _moments(x: Tensor, groups: int) -> tuple[Tensor, Tensor]:
    """Mean and variance of each group of channels, B x groups in float32 or wider, from those of bands."""
    rows = max(_BAND // x[:, :, 0].nbytes, 1)
    wide = torch.promote_types(x.dtype, torch.float32)
    means, variances, weights = [], [], []
    for band in x.split(rows, 2):
        values = band.to(wide).reshape(len(x), groups, -1)
        mean = values.mean(-1, keepdim=True)
        means.append(mean[..., 0])
        variances.append((values - mean).square_().mean(-1))  # a fraction of the time of torch.var_mean
        weights.append(band.shape[2] / x.shape[2])
    of_bands, within = torch.stack(means), torch.stack(variances)
    share = of_bands.new_tensor(weights)[:, None, None]
    mean = (of_bands * share).sum(0)
    return mean, ((within + (of_bands - mean).square()) * share).sum(0)
