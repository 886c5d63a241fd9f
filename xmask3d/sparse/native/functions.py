"""Sparse convolutions by the compiled loops, as differentiable functions of features and weights.

Features are V x A float32, weights K x A x B float32.
"""

from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

from xmask3d.sparse.native import kernels
from xmask3d.sparse.native.kernels import BlockedKernelMap


class _Convolution(torch.autograd.Function):
    """Convolution: `there` leads from target rows to their sources; `back` from source rows to their targets."""

    @staticmethod
    def forward(
        ctx: Any, features: Tensor, weight: Tensor, there: BlockedKernelMap, back: BlockedKernelMap, mirrored: bool
    ) -> Tensor:
        ctx.save_for_backward(features, weight)
        ctx.maps, ctx.mirrored = (there, back), mirrored
        return kernels.forward(features, there, weight)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor | None, ...]:
        features, weight = ctx.saved_tensors
        there, back = ctx.maps
        gradient = gradient.contiguous()
        for_features = for_weight = None
        if ctx.needs_input_grad[0]:
            # Row u reads row v through tap k exactly when v reads u through the opposite tap.
            for_features = kernels.forward(gradient, back, weight.transpose(1, 2), ctx.mirrored)
        if ctx.needs_input_grad[1]:
            for_weight = kernels.weight_gradient(features, gradient, there).to(weight.dtype)
        return for_features, for_weight, None, None, None


def convolution(features: Tensor, weight: Tensor, kernel_map: BlockedKernelMap) -> Tensor:
    """Convolve V x A features, K x A x B weight -> V x B on the same rows, with a map that mirrors itself."""
    return _Convolution.apply(features, weight, kernel_map, kernel_map, True)


def resampling(features: Tensor, weight: Tensor, there: BlockedKernelMap, back: BlockedKernelMap) -> Tensor:
    """Convolve S x A features, K x A x B weight -> T x B on other rows; `back` is the inverse of `there`."""
    return _Convolution.apply(features, weight, there, back, False)
