"""Multi-scale deformable attention (arXiv 2010.04159) by the compiled loops, as a differentiable function."""

import functools
from collections.abc import Sequence
from ctypes import c_int
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.autograd.function import once_differentiable

from xmask3d.native.compiler import BuildError
from xmask3d.native.library import address, failure_of, library, threads

_SIZES = (8, 16, 24, 32, 48, 64)  # of a head, as compiled


def usable(values: Tensor, *others: Tensor) -> bool:
    """Whether the loops take these tensors (B x M x heads x size first), and are to be had on this machine."""
    floats = all(x.is_cpu and x.dtype in (torch.float32, torch.bfloat16, torch.float16) for x in (values, *others))
    return floats and values.shape[-1] in _SIZES and not failure()


def attend(
    values: Tensor, offsets: Tensor, weights: Tensor, reference: Tensor, sizes: Sequence[tuple[int, int]]
) -> Tensor:
    """What every query takes from places around its reference, weighted, in float32.

    Args:
        values: B x M x heads x size, the levels one after the other, each row by row.
        offsets: B x N x heads x levels x points x 2 (x, y), from the reference, in cells of the level.
        weights: B x N x heads x (levels * points).
        reference: N x 2, the place (x, y) of each query in [0, 1]; takes no gradient.
        sizes: height and width of each level; their products sum to M.

    Returns:
        B x N x (heads * size).
    """
    extents = torch.tensor(sizes, dtype=torch.int32)
    return _Attend.apply(values.float(), offsets.float(), weights.float(), reference.float().contiguous(), extents)


def attend_plainly(
    values: Tensor, offsets: Tensor, weights: Tensor, reference: Tensor, sizes: Sequence[tuple[int, int]]
) -> Tensor:
    """The same in plain torch, on every device and in every type."""
    batch, _, heads, size = values.shape
    count, points = offsets.shape[1], offsets.shape[4]
    # Filled where the offsets are: numbers copied to a GPU would wait for it.
    sides = [offsets.new_full((), side) for height, width in sizes for side in (width, height)]
    extent = torch.stack(sides).view(-1, 2)
    places = reference[:, None, None, None, :] + offsets / extent[:, None, :]
    # grid_sample wants [-1, 1] from edge to edge, and one image a head.
    grids = (2 * places - 1).permute(3, 0, 2, 1, 4, 5).flatten(1, 2)
    by_head = values.permute(0, 2, 3, 1).flatten(0, 1)
    levels = by_head.split([height * width for height, width in sizes], dim=-1)
    shares = weights.transpose(1, 2).flatten(0, 1).unsqueeze(1).split(points, dim=-1)
    # Places keep their precision where autocast has made the values coarse.
    samples = [
        F.grid_sample(level.unflatten(-1, extents).to(grid.dtype), grid, padding_mode="zeros", align_corners=False)
        for level, extents, grid in zip(levels, sizes, grids, strict=True)
    ]
    attended = torch.stack([(x * share).sum(-1) for x, share in zip(samples, shares, strict=True)]).sum(0)
    return attended.view(batch, heads * size, count).transpose(1, 2)


class _Attend(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any, values: Tensor, offsets: Tensor, weights: Tensor, reference: Tensor, extents: Tensor
    ) -> Tensor:
        batch, count, heads, levels, points, _ = offsets.shape
        size = values.shape[-1]
        cells = int(extents.prod(1).sum())
        if values.shape != (batch, cells, heads, size) or weights.shape != (batch, count, heads, levels * points):
            raise ValueError(
                f"values {tuple(values.shape)}, offsets {tuple(offsets.shape)} and weights {tuple(weights.shape)} "
                f"do not fit levels of {extents.tolist()} cells"
            )
        if reference.shape != (count, 2) or len(extents) != levels:
            raise ValueError(f"reference {tuple(reference.shape)} and {len(extents)} levels: {(count, 2)} and {levels}")
        tensors = tuple(x.contiguous() for x in (values, offsets, weights)) + (reference, extents)
        shape = tuple(map(c_int, (batch, count, cells, heads, levels, points, size)))
        out = values.new_empty(batch, count, heads * size)
        library().xm_deformable(*map(address, tensors), *shape, address(out), threads())
        ctx.save_for_backward(*tensors)
        ctx.shape = shape
        return out

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor | None, ...]:
        values, offsets, weights, _, _ = ctx.saved_tensors
        found = torch.zeros_like(values), torch.empty_like(offsets), torch.empty_like(weights)
        gradient = gradient.contiguous()  # a name of its own, or it would be gone before it is read
        arguments = *map(address, ctx.saved_tensors), *ctx.shape, address(gradient)
        library().xm_deformable_backward(*arguments, *map(address, found), threads())
        return *found, None, None


@functools.cache
def failure() -> str:
    """Why the loops cannot be used on this machine; empty if they can."""
    return failure_of("deformable attention", _check)


def _check() -> None:
    """Compare with plain torch on a small case.

    Raises:
        BuildError: they differ, so that the compiler or its flags are at fault.
    """
    generator = torch.Generator().manual_seed(0)
    sizes = [(3, 5), (2, 2)]
    values = torch.randn(2, 19, 2, 8, generator=generator)
    offsets = 2 * torch.randn(2, 7, 2, 2, 3, 2, generator=generator)
    weights, reference = torch.rand(2, 7, 2, 6, generator=generator), torch.rand(7, 2, generator=generator)
    results = []
    with torch.enable_grad():
        for function in (attend, attend_plainly):
            v, o, w = leaves = [x.detach().clone().requires_grad_() for x in (values, offsets, weights)]
            out = function(v, o, w, reference, sizes)
            results.append([out, *torch.autograd.grad(out.square().sum(), leaves)])
    for one, true in zip(*results, strict=True):
        if not (one - true).norm() <= 1e-4 * true.norm():  # nor if it is NaN
            raise BuildError("the compiled deformable attention fails its self-test")
