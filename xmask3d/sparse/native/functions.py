"""Sparse convolutions by the compiled loops, as differentiable functions of features and weights.

Features are V x A float32 or bfloat16, weights K x A x B float32.
"""

from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

from xmask3d.sparse.native.kernels import PairLists, outer, product


class _Convolution(torch.autograd.Function):
    """`forward_pairs` lead from the target rows to what they read; `backward_pairs` from the source rows to theirs."""

    @staticmethod
    def forward(
        ctx: Any, features: Tensor, weight: Tensor, forward_pairs: PairLists, backward_pairs: PairLists, mirrored: bool
    ) -> Tensor:
        ctx.save_for_backward(features, weight)
        ctx.pairs, ctx.mirrored = (forward_pairs, backward_pairs), mirrored
        return product(features, forward_pairs, weight)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor | None, ...]:
        features, weight = ctx.saved_tensors
        forward_pairs, backward_pairs = ctx.pairs
        gradient = gradient.to(features.dtype).contiguous()
        for_features = for_weight = None
        if ctx.needs_input_grad[0]:
            # Row u reads row v through tap k just when v reads u through the opposite tap.
            for_features = product(gradient, backward_pairs, weight.transpose(1, 2), ctx.mirrored)
        if ctx.needs_input_grad[1]:
            for_weight = outer(features, gradient, forward_pairs).to(weight.dtype)
        return for_features, for_weight, None, None, None


def convolution(features: Tensor, weight: Tensor, pairs: PairLists) -> Tensor:
    """V x A features, K x A x B weight -> V x B on the same rows, through a map that is its own mirror image."""
    return _Convolution.apply(features, weight, pairs, pairs, True)


def resampling(features: Tensor, weight: Tensor, there: PairLists, back: PairLists) -> Tensor:
    """S x A features, K x A x B weight -> T x B on other rows: `there` has T targets, `back` the same pairs turned."""
    return _Convolution.apply(features, weight, there, back, False)
