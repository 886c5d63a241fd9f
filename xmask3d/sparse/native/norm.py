"""Batch norm, the sum with a shortcut and ReLU in one pass over memory, differentiable."""

from ctypes import c_int, c_int64
from typing import Any

import torch
from torch import Tensor, nn
from torch.autograd.function import once_differentiable

from xmask3d.sparse.native.kernels import address, kind_of, library, threads


def normalise(features: Tensor, norm: nn.BatchNorm1d, shortcut: Tensor | None, relu: bool) -> Tensor | None:
    """`relu(norm(features) + shortcut)`, with the module's running statistics used or brought up to date.

    Args:
        features: V x C float32 or bfloat16.
        norm: of C channels.
        shortcut: V x C of the same type, or None.
        relu: whether negative results become 0.

    Returns:
        V x C of the features' type; None where the module is of a kind that only torch can run.
    """
    if not _is_plain(norm) or (shortcut is not None and shortcut.dtype != features.dtype):
        return None
    if norm.training:
        if features.shape[0] < 2:
            return None
        out, mean, variance = _Normalised.apply(features, norm.weight, norm.bias, shortcut, norm.eps, relu)
        _update(norm, mean, variance * (features.shape[0] / (features.shape[0] - 1)))
        return out
    if torch.is_grad_enabled():
        return None
    scale = norm.weight * torch.rsqrt(norm.running_var + norm.eps)
    return _apply(features.contiguous(), scale, norm.bias - norm.running_mean * scale, shortcut, relu)


def _is_plain(norm: nn.BatchNorm1d) -> bool:
    plain = type(norm) is nn.BatchNorm1d and norm.affine and norm.track_running_stats and norm.momentum is not None
    return plain and norm.weight.dtype == torch.float32


@torch.no_grad()
def _update(norm: nn.BatchNorm1d, mean: Tensor, variance: Tensor) -> None:
    norm.num_batches_tracked.add_(1)
    norm.running_mean.lerp_(mean, norm.momentum)
    norm.running_var.lerp_(variance, norm.momentum)


class _Normalised(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any, features: Tensor, weight: Tensor, bias: Tensor, shortcut: Tensor | None, eps: float, relu: bool
    ) -> tuple[Tensor, Tensor, Tensor]:
        features = features.contiguous()
        rows, width = features.shape
        wide_mean, squares = (torch.empty(width, dtype=torch.float64) for _ in range(2))
        call = getattr(library(), f"xm_norm_statistics_{kind_of(features)}")
        call(address(features), c_int64(rows), c_int(width), address(wide_mean), address(squares), threads())
        variance = (squares / rows).float()
        mean, inverse = wide_mean.float(), torch.rsqrt(variance + eps)
        scale = weight * inverse
        shift = bias - mean * scale
        out = _apply(features, scale, shift, shortcut, relu)
        # Without a shortcut the sign of the result can be told from the input again.
        saved_output = out if relu and shortcut is not None else None
        ctx.save_for_backward(features, mean, inverse, scale, shift, saved_output)
        ctx.relu = relu
        ctx.mark_non_differentiable(mean, variance)
        return out, mean, variance

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, gradient: Tensor, *_: Tensor) -> tuple[Tensor | None, ...]:
        features, mean, inverse, scale, shift, output = ctx.saved_tensors
        gradient = gradient.to(features.dtype).contiguous()
        rows, width = features.shape
        name, shape = kind_of(features), (c_int64(rows), c_int(width))
        factors = address(mean), address(scale), address(shift)
        sums, products = (torch.empty(width, dtype=torch.float64) for _ in range(2))
        before = gradient if output is None else torch.empty_like(gradient)
        getattr(library(), f"xm_norm_backward_sums_{name}")(
            address(gradient), address(output), address(features), *shape, *factors, c_int(ctx.relu), address(before),
            address(sums), address(products), threads(),
        )  # fmt: skip
        for_weight = products.float() * inverse
        # d/dx of weight (x - mean) / deviation: what is common to all rows is taken off.
        slope = (scale.double() * products * inverse.double().square() / rows).float()
        offset = (scale.double() * sums / rows).float()
        for_features = torch.empty_like(features)
        still_to_mask = c_int(ctx.relu and output is None)
        getattr(library(), f"xm_norm_backward_apply_{name}")(
            address(before), address(features), *shape, *factors, address(slope), address(offset), still_to_mask,
            address(for_features), threads(),
        )  # fmt: skip
        for_shortcut = before if ctx.needs_input_grad[3] else None
        return for_features, for_weight, sums.float(), for_shortcut, None, None


def _apply(features: Tensor, scale: Tensor, shift: Tensor, shortcut: Tensor | None, relu: bool) -> Tensor:
    out = torch.empty_like(features)
    other = None if shortcut is None else shortcut.contiguous()
    call = getattr(library(), f"xm_norm_apply_{kind_of(features)}")
    shape = c_int64(features.shape[0]), c_int(features.shape[1])
    factors = address(scale), address(shift)
    call(address(features), address(other), *shape, *factors, c_int(relu), address(out), threads())
    return out
