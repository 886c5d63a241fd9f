"""Batch norm of a matrix's rows with the shortcut and the ReLU that follow it, by the compiled loops."""

import functools
from collections.abc import Sequence
from ctypes import c_float, c_int, c_int64
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.autograd.function import once_differentiable

from xmask3d.native.compiler import BuildError
from xmask3d.native.library import address, failure_of, library, threads

_TYPES = (torch.float32, torch.bfloat16)


def usable(*features: Tensor) -> bool:
    """Whether the loops take these features, and are to be had on this machine."""
    return all(x.is_cpu and x.dtype in _TYPES and len(x) > 1 for x in features) and not failure()


def normalise(
    x: Tensor,
    weight: Tensor,
    bias: Tensor,
    running_mean: Tensor,
    running_variance: Tensor,
    *,
    training: bool,
    momentum: float = 0.1,
    eps: float = 1e-5,
    shortcut: Tensor | None = None,
    relu: bool = True,
    types: Sequence[torch.dtype] = (torch.float32,),
) -> tuple[Tensor, ...]:
    """Batch norm (arXiv 1502.03167), plus the shortcut, then ReLU; computed in float32 and rounded once.

    Args:
        x: V x C float32 or bfloat16, at least two rows.
        weight, bias: C float32.
        running_mean, running_variance: C float32; in training the batch's own take their place and move them.
        training: only then do gradients pass.
        shortcut: V x C float32 or bfloat16, if there is one.
        relu: whether negative results become 0.
        types: of the results: float32, bfloat16, or first float32 and then the same in bfloat16.

    Returns:
        V x C, one for each of `types`.

    Raises:
        ValueError: shapes or types that do not fit; the loops themselves check nothing.
    """
    channels = x.shape[-1]
    vectors = (weight, bias, running_mean, running_variance)
    if x.ndim != 2 or len(x) < 2 or any(v.shape != (channels,) or v.dtype != torch.float32 for v in vectors):
        raise ValueError(f"features {tuple(x.shape)} and norm of {[tuple(v.shape) for v in vectors]}, float32")
    if shortcut is not None and shortcut.shape != x.shape:
        raise ValueError(f"features {tuple(x.shape)} and shortcut {tuple(shortcut.shape)}")
    if tuple(types) not in ((torch.float32,), (torch.bfloat16,), _TYPES):
        raise ValueError(f"results of {types}: float32, bfloat16, or float32 and bfloat16")
    if not training:
        x, weight, bias = x.detach(), weight.detach(), bias.detach()
        shortcut = None if shortcut is None else shortcut.detach()
    settings = training, momentum, eps, relu, tuple(types)
    return _Normalise.apply(x, shortcut, weight, bias, running_mean, running_variance, *settings)


class _Normalise(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any,
        x: Tensor,
        shortcut: Tensor | None,
        weight: Tensor,
        bias: Tensor,
        running_mean: Tensor,
        running_variance: Tensor,
        training: bool,
        momentum: float,
        eps: float,
        relu: bool,
        types: tuple[torch.dtype, ...],
    ) -> tuple[Tensor, ...]:
        x, shortcut = x.contiguous(), None if shortcut is None else shortcut.contiguous()
        mean, inverse = torch.empty_like(weight), torch.empty_like(weight)
        results = tuple(torch.empty_like(x, dtype=dtype) for dtype in types)
        by_type = dict(zip(types, results, strict=True))
        library().xm_norm_forward(
            *_matrix(x),
            *_matrix(shortcut),
            c_int64(len(x)),
            c_int(x.shape[1]),
            *map(address, (weight, bias, running_mean, running_variance)),
            c_float(momentum),
            c_float(eps),
            c_int(training),
            c_int(relu),
            *map(address, (mean, inverse, by_type.get(torch.float32), by_type.get(torch.bfloat16))),
            threads(),
        )
        ctx.set_materialize_grads(False)
        ctx.shortcut_type, ctx.types = None if shortcut is None else shortcut.dtype, types
        ctx.save_for_backward(x, weight, mean, inverse, *(results[:1] if relu else ()))
        return results

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, *gradients: Tensor | None) -> tuple[Tensor | None, ...]:
        x, weight, mean, inverse, *result = ctx.saved_tensors
        given = {
            dtype: gradient if gradient.stride(1) == 1 else gradient.contiguous()
            for dtype, gradient in zip(ctx.types, gradients, strict=True)
            if gradient is not None
        }
        for_x, for_weight, for_bias = torch.empty_like(x), torch.empty_like(weight), torch.empty_like(weight)
        for_shortcut = None
        if ctx.shortcut_type is not None and ctx.needs_input_grad[1]:
            for_shortcut = torch.empty_like(x, dtype=ctx.shortcut_type)
        steps = []
        for dtype in _TYPES:
            gradient = given.get(dtype)
            steps += [address(gradient), c_int64(0 if gradient is None else gradient.stride(0))]
        library().xm_norm_backward(
            *_matrix(x),
            *steps,
            *_matrix(result[0] if result else None),
            c_int64(len(x)),
            c_int(x.shape[1]),
            *map(address, (weight, mean, inverse, for_x)),
            *_matrix(for_shortcut),
            *map(address, (for_weight, for_bias)),
            threads(),
        )
        return for_x, for_shortcut, for_weight, for_bias, *[None] * 7


def _matrix(tensor: Tensor | None) -> tuple[Any, c_int]:
    """As the loops take a matrix of either type."""
    return address(tensor), c_int(tensor is not None and tensor.dtype == torch.bfloat16)


@functools.cache
def failure() -> str:
    """Why the loops cannot be used on this machine; empty if they can."""
    return failure_of("batch norm", _check)


def _check() -> None:
    """Compare with plain torch on a small case.

    Raises:
        BuildError: they differ, so that the compiler or its flags are at fault.
    """
    generator = torch.Generator().manual_seed(0)
    x, shortcut, gradient = (torch.randn(300, 19, generator=generator) for _ in range(3))
    weight, bias = torch.rand(19, generator=generator), torch.randn(19, generator=generator)
    found = []
    with torch.enable_grad():
        for plain in (False, True):
            x, shortcut, weight, bias = leaves = [
                t.detach().clone().requires_grad_() for t in (x, shortcut, weight, bias)
            ]
            mean, variance = torch.zeros(19), torch.ones(19)
            if plain:
                y = F.relu(F.batch_norm(x, mean, variance, weight, bias, training=True) + shortcut)
            else:
                (y,) = normalise(x, weight, bias, mean, variance, training=True, shortcut=shortcut)
            found.append([y, mean, variance, *torch.autograd.grad(y, leaves, gradient)])
    for one, true in zip(*found, strict=True):
        if not (one - true).norm() <= 1e-5 * true.norm():  # nor if it is NaN
            raise BuildError("the compiled batch norm fails its self-test")
