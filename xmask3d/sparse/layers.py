"""Layers on sparse tensors, with the parameter names and shapes of MinkowskiEngine."""

import math
from collections.abc import Sequence
from typing import Literal

import torch
from torch import Tensor, nn
from torch.nn import functional

from xmask3d.native.norm import normalise, usable
from xmask3d.sparse.backend import autocast_type
from xmask3d.sparse.tensor import SparseTensor


class Convolution(nn.Module):
    """Convolution of an odd kernel and stride 1, of kernel 2 and stride 2, or of kernel 1; no bias.

    The parameter `kernel` is (kernel_size^3, in, out), x fastest; (in, out) for kernel 1.
    """

    def __init__(self, in_channels: int, out_channels: int, kernel_size: int = 3, stride: int = 1) -> None:
        super().__init__()
        if not ((stride == 1 and kernel_size % 2) or (stride == 2 and kernel_size == 2)):
            raise ValueError(f"no convolution of kernel {kernel_size} and stride {stride}")
        self.kernel_size, self.stride = kernel_size, stride
        shape = (in_channels, out_channels) if kernel_size == 1 else (kernel_size**3, in_channels, out_channels)
        self.kernel = nn.Parameter(torch.empty(shape))
        # Kaiming normal over the outputs, for ReLU.
        nn.init.normal_(self.kernel, std=math.sqrt(2 / (kernel_size**3 * out_channels)))

    def forward(self, x: SparseTensor) -> SparseTensor:
        """V x in -> V x out on the same voxels, or on those of the next coarser level for stride 2."""
        features = x.features.to(autocast_type(x.features))
        if self.kernel_size == 1:
            return x.with_features(x.manager.pointwise(features, self.kernel, x.stride))
        if self.stride == 2:
            return SparseTensor(x.manager.downsample(features, self.kernel, x.stride), 2 * x.stride, x.manager)
        return x.with_features(x.manager.convolve(features, self.kernel, x.stride, self.kernel_size))

    def extra_repr(self) -> str:
        return f"{self.kernel.shape[-2]}, {self.kernel.shape[-1]}, kernel_size={self.kernel_size}, stride={self.stride}"


class TransposedConvolution(nn.Module):
    """2x2x2 transposed convolution of stride 2, back to the voxels of the next finer level; no bias.

    The parameter `kernel` is (8, in, out).
    """

    def __init__(self, in_channels: int, out_channels: int) -> None:
        super().__init__()
        self.kernel = nn.Parameter(torch.empty(8, in_channels, out_channels))
        bound = 1 / math.sqrt(8 * out_channels)
        nn.init.uniform_(self.kernel, -bound, bound)

    def forward(self, x: SparseTensor) -> SparseTensor:
        """V x in at stride s -> V' x out at stride s / 2."""
        features = x.features.to(autocast_type(x.features))
        return SparseTensor(x.manager.upsample(features, self.kernel, x.stride), x.stride // 2, x.manager)

    def extra_repr(self) -> str:
        return f"{self.kernel.shape[1]}, {self.kernel.shape[2]}"


class BatchNorm(nn.Module):
    """Batch norm over all voxels of a batch; its parameters are named `bn.*`."""

    def __init__(self, channels: int, eps: float = 1e-5, momentum: float = 0.1) -> None:
        super().__init__()
        self.bn = nn.BatchNorm1d(channels, eps=eps, momentum=momentum)

    def forward(self, x: SparseTensor) -> SparseTensor:
        return x.with_features(self.bn(x.features))


_LOW_TYPES = {
    "all": (torch.float32, torch.bfloat16), "convolutions": (torch.bfloat16,), "sums": (torch.float32,)
}  # fmt: skip


def normed_convolution(
    convolution: Convolution | TransposedConvolution,
    norm: BatchNorm,
    x: SparseTensor,
    *,
    shortcut: SparseTensor | None = None,
    relu: bool = True,
    read_by: Literal["all", "convolutions", "sums"] = "all",
) -> SparseTensor:
    """A convolution, batch norm, what a shortcut adds, and ReLU; compiled, what follows the convolution is one loop.

    Args:
        x: V x in.
        shortcut: V' x out on the voxels of the result, if there is one.
        relu: whether to end in ReLU.
        read_by: what the result is for. Where products are of lower precision, it may come as convolutions round it
            if nothing else reads it, and need not be rounded if none does.

    Returns:
        V' x out, in the type of the shortcut or else of `x`; what only convolutions read, in theirs.
    """
    stream = autocast_type((x if shortcut is None else shortcut).features)
    low = x.manager.low_products and stream == torch.float32
    if low:
        x = x.with_features(x.features.bfloat16() if x.rounded is None else x.rounded)
    y = convolution(x)
    added = () if shortcut is None else (shortcut.features,)
    if not (x.manager.compiled and _fusible(norm.bn, y.features, *added)):
        out = norm(y.with_features(y.features.to(stream))).features
        out = out if shortcut is None else out.add_(shortcut.features)
        return y.with_features(functional.relu_(out) if relu else out)
    types = _LOW_TYPES[read_by] if low else (y.features.dtype,)
    return y.with_features(*_normalise(norm.bn, y.features, *added, relu=relu, types=types))


def _fusible(norm: nn.BatchNorm1d, *features: Tensor) -> bool:
    """Whether the compiled loops take a norm and these features; without batch statistics they pass no gradient."""
    usual = norm.affine and norm.track_running_stats and norm.momentum is not None
    passing = norm.training or not torch.is_grad_enabled()
    return usual and passing and norm.weight.dtype == torch.float32 and usable(*features)


def _normalise(
    norm: nn.BatchNorm1d, x: Tensor, shortcut: Tensor | None = None, *, relu: bool, types: Sequence[torch.dtype]
) -> tuple[Tensor, ...]:
    running_mean, running_variance, momentum = norm.running_mean, norm.running_var, norm.momentum
    assert running_mean is not None and running_variance is not None and momentum is not None
    if norm.training and norm.num_batches_tracked is not None:
        norm.num_batches_tracked.add_(1)
    return normalise(
        x,
        norm.weight,
        norm.bias,
        running_mean,
        running_variance,
        training=norm.training,
        momentum=momentum,
        eps=norm.eps,
        shortcut=shortcut,
        relu=relu,
        types=types,
    )
