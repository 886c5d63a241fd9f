"""Convolutions of 3 x 3 with fewer multiplications: Winograd's minimal filtering F(4x4, 3x3) (arXiv 1509.09308).

It needs a quarter of the multiplications, as 36 matrix products; the compiled loops transform inputs and outputs. In
float32 the relative difference from a direct sum is about 2e-6 (a direct sum's own error is 2e-7).
"""

import functools
from ctypes import c_int, c_int64
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.autograd.function import once_differentiable
from torch.nn.grad import conv2d_weight

from xmask3d.native.compiler import BuildError
from xmask3d.native.library import address, failure_of, library, threads

# With fewer channels or tiles the transforms cost more than they save (`python -m tools.benchmark --part features`).
_CHANNELS, _TILES = 64, 64
# Bytes of maps, and of weights, in the products at a time, which should stay in a cache.
_BYTES = 8 << 20
TILE = 4  # rows and columns of outputs per tile
_G = torch.tensor(
    [[6, 0, 0], [-4, -4, -4], [-4, 4, -4], [1, 2, 4], [1, -2, 4], [0, 0, 24]], dtype=torch.float64, device="cpu"
) / 24  # fmt: skip
_WEIGHTS = torch.einsum("ia,jb->ijab", _G, _G).reshape(36, 9).float()


def conv2d(x: Tensor, weight: Tensor, bias: Tensor | None = None) -> Tensor:
    """Compute `torch.nn.functional.conv2d(x, weight, bias, padding=1)` of 3 x 3 weights, by the faster method.

    Args:
        x: B x C x H x W.
        weight: C' x C x 3 x 3.
        bias: C'.

    Returns:
        B x C' x H x W; differentiable once where Winograd's algorithm is used.
    """
    if not worthwhile(x, weight):
        return F.conv2d(x, weight, bias, padding=1)
    return _Convolve.apply(x, weight, bias)


def worthwhile(x: Tensor, weight: Tensor) -> bool:
    """Return True if this method is faster here for `x`, B x C x H x W, and `weight`, C' x C x 3 x 3."""
    return (
        x.is_cpu
        and x.dtype == weight.dtype == torch.float32
        and weight.shape[2:] == (3, 3)
        and min(weight.shape[:2]) >= _CHANNELS
        and x.shape[2] * x.shape[3] >= _TILES * TILE**2
        and x.stride(3) == 1
        and not torch.is_autocast_enabled("cpu")
        and not failure()
    )


class Filters:
    """Weights prepared for the products, all at once or, if they are much larger than the maps, part by part."""

    def __init__(self, weight: Tensor, *, turned: bool = False) -> None:
        """Keep the weights to prepare.

        Args:
            weight: C' x C x 3 x 3.
            turned: prepare the weights for the gradient of the input instead: from C' to C, with reversed taps.
        """
        self.weight = weight.detach().transpose(0, 1) if turned else weight.detach()
        self.mixture = _WEIGHTS.flip(1) if turned else _WEIGHTS
        self.channels_out, self.channels_in = self.weight.shape[:2]
        self._whole: Tensor | None = None

    def whole(self) -> Tensor:
        """Return all prepared weights, 36 x C' x C, and keep them."""
        if self._whole is None:
            self._whole = self.part(0, self.channels_out)
        return self._whole

    def part(self, first: int, last: int) -> Tensor:
        """Return a part of the prepared weights, 36 x (last - first) x C."""
        if self._whole is not None:
            return self._whole[:, first:last]
        weight = self.weight[first:last]
        return torch.mm(self.mixture, weight.reshape(-1, 9).T).view(36, *weight.shape[:2])


def convolve(x: Tensor, filters: Filters, bias: Tensor | None, out: Tensor) -> None:
    """Write a convolution of `x` into `out`.

    Args:
        x: B x C x H x W in float32 on the CPU, with contiguous rows; it is padded with zeros.
        filters: filters of C' x C x 3 x 3 weights.
        bias: C'.
        out: B x C' x H' x W with contiguous rows.

    Raises:
        ValueError: the shapes do not fit.
    """
    channels, (height, width) = x.shape[1], x.shape[2:]
    shapes = filters.channels_in, (len(x), filters.channels_out, width)
    if shapes != (channels, (*out.shape[:2], out.shape[3])) or (bias is not None and bias.shape != out.shape[1:2]):
        raise ValueError(
            f"maps {tuple(x.shape)}, {filters.channels_out} x {filters.channels_in} filters, "
            f"bias {None if bias is None else tuple(bias.shape)} and result {tuple(out.shape)} do not fit"
        )
    lines, columns = out.shape[2], -(-width // TILE)
    tile_rows = -(-lines // TILE)
    rows, per_part = tile_rows, filters.channels_out
    fit = _BYTES // (36 * x.itemsize)
    # The smaller of weights and maps is transformed completely, the other one part by part.
    if filters.channels_out <= tile_rows * columns:
        filters.whole()
        rows = min(max(fit // (max(channels, filters.channels_out) * columns), 1), tile_rows)
    else:
        per_part = min(max(fit // max(channels, tile_rows * columns), 1), filters.channels_out)
    entered = x.new_empty(36, channels, rows * columns)
    products = x.new_empty(36 * per_part * rows * columns)
    for image, result in zip(x, out, strict=True):
        for first in range(0, tile_rows, rows):
            count = min(rows, tile_rows - first)
            maps = entered.view(-1)[: 36 * channels * count * columns].view(36, channels, -1)
            top = first * TILE - 1
            library().xm_winograd_enter(
                address(image), *_strides(image), *map(c_int, (channels, height, width, top, count)), address(maps),
                threads(),
            )  # fmt: skip
            some_lines = result[:, first * TILE : (first + count) * TILE]
            for start in range(0, filters.channels_out, per_part):
                weights = filters.part(start, min(start + per_part, filters.channels_out))
                product = products[: 36 * weights.shape[1] * maps.shape[2]].view(36, weights.shape[1], -1)
                torch.bmm(weights, maps, out=product)
                target = some_lines[start : start + per_part]
                sizes = map(c_int, (*target.shape, count))
                shift = None if bias is None else bias[start : start + per_part]
                library().xm_winograd_leave(
                    address(product), address(shift), *sizes, address(target), *_strides(target), threads()
                )


class _Convolve(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
        ctx.save_for_backward(*((x, weight) if ctx.needs_input_grad[1] else ()))
        ctx.weight = weight  # for frozen weights, nothing must be saved or checked
        return _whole(x, Filters(weight), bias)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor | None, ...]:
        needs_x, needs_weight, needs_bias = ctx.needs_input_grad
        gradient = gradient.contiguous()
        of_x = _whole(gradient, Filters(ctx.weight, turned=True), None) if needs_x else None
        of_weight = of_bias = None
        if needs_weight:
            of_weight = conv2d_weight(ctx.saved_tensors[0], ctx.weight.shape, gradient, padding=1)
        if needs_bias:
            of_bias = gradient.sum((0, 2, 3))
        return of_x, of_weight, of_bias


def _whole(x: Tensor, filters: Filters, bias: Tensor | None) -> Tensor:
    out = x.new_empty(len(x), filters.channels_out, *x.shape[2:])
    convolve(x.detach(), filters, None if bias is None else bias.detach().contiguous(), out)
    return out


def _strides(image: Tensor) -> tuple[c_int64, c_int64]:
    """Return the strides between neighbouring planes and neighbouring rows of C x H x W."""
    return c_int64(image.stride(0)), c_int64(image.stride(1))


@functools.cache
def failure() -> str:
    """Return the reason why the loops cannot be used on this machine, or an empty string."""
    return failure_of("convolutions of 3 x 3", _check)


def _check() -> None:
    """Compare with plain torch on a small case.

    Raises:
        BuildError: the results differ, so the compiler or its flags are at fault.
    """
    generator = torch.Generator().manual_seed(0)
    x, weight = torch.randn(1, 5, 11, 70, generator=generator), torch.randn(3, 5, 3, 3, generator=generator)
    true = F.conv2d(x, weight, padding=1)
    if not (_whole(x, Filters(weight), None) - true).norm() <= 1e-4 * true.norm():  # also false for NaN
        raise BuildError("the compiled convolutions fail their self-test")
