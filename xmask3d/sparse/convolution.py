"""Sparse convolutions as differentiable functions of features and weights.

Weights are K x A x B (taps, input channels, output channels) and a convolution is a correlation:
out[u] = sum over taps k of in[u + offset_k] weight[k].
"""

from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

from xmask3d.sparse.coordinates import KernelMap, StrideMap
from xmask3d.sparse.gather import gather_gradients, gather_product, product_select


class _Submanifold(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, features: Tensor, weight: Tensor, kernel_map: KernelMap) -> Tensor:
        ctx.save_for_backward(features, weight)
        ctx.kernel_map = kernel_map
        return gather_product(features, kernel_map.table, weight.to(features.dtype))

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor | None, ...]:
        features, weight = ctx.saved_tensors
        table = ctx.kernel_map.table
        gradient = gradient.contiguous()
        for_features = for_weight = None
        # Row u reads row v through tap k exactly when v reads u through the opposite tap. With the taps reversed, the
        # same table therefore gathers the gradients, and one gathered block serves both results.
        turned = weight.flip(0).transpose(1, 2).to(gradient.dtype)
        if ctx.needs_input_grad[0] and ctx.needs_input_grad[1]:
            for_features, for_weight = gather_gradients(gradient, table, turned, features)
            for_weight = for_weight.flip(0).transpose(1, 2)
        elif ctx.needs_input_grad[0]:
            for_features = gather_product(gradient, table, turned)
        elif ctx.needs_input_grad[1]:
            for_weight = gather_gradients(features, table, None, gradient)[1]
        return for_features, for_weight, None


class _Strided(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, features: Tensor, weight: Tensor, stride_map: StrideMap) -> Tensor:
        ctx.save_for_backward(features, weight)
        ctx.stride_map = stride_map
        return gather_product(features, stride_map.children, weight.to(features.dtype))

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor | None, ...]:
        features, weight = ctx.saved_tensors
        stride_map = ctx.stride_map
        gradient = gradient.contiguous()
        for_features = for_weight = None
        if ctx.needs_input_grad[0]:
            for_features = product_select(gradient, stride_map, weight.transpose(1, 2).to(gradient.dtype))
        if ctx.needs_input_grad[1]:
            for_weight = gather_gradients(features, stride_map.children, None, gradient)[1]
        return for_features, for_weight, None


class _Transposed(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, features: Tensor, weight: Tensor, stride_map: StrideMap) -> Tensor:
        ctx.save_for_backward(features, weight)
        ctx.stride_map = stride_map
        return product_select(features, stride_map, weight.to(features.dtype))

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor | None, ...]:
        features, weight = ctx.saved_tensors
        children = ctx.stride_map.children
        turned = weight.transpose(1, 2).to(gradient.dtype) if ctx.needs_input_grad[0] else None
        for_features, for_weight = gather_gradients(gradient.contiguous(), children, turned, features)
        return for_features, for_weight.transpose(1, 2) if ctx.needs_input_grad[1] else None, None


def submanifold_convolution(features: Tensor, weight: Tensor, kernel_map: KernelMap) -> Tensor:
    """Convolve v x A features, K^3 x A x B weight -> V x B on the same coordinates."""
    return _Submanifold.apply(features, weight, kernel_map)


def strided_convolution(features: Tensor, weight: Tensor, stride_map: StrideMap) -> Tensor:
    """Convolve fine F x A features, 8 x A x B weight -> coarse T x B."""
    return _Strided.apply(features, weight, stride_map)


def transposed_convolution(features: Tensor, weight: Tensor, stride_map: StrideMap) -> Tensor:
    """Convolve coarse T x A features, 8 x A x B weight -> fine F x B."""
    return _Transposed.apply(features, weight, stride_map)
