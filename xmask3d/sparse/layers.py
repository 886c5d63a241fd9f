"""Layers on sparse tensors, with the parameter names and shapes of MinkowskiEngine."""

import math

import torch
from torch import nn
from torch.nn import functional

from xmask3d.sparse.backend import autocast_type
from xmask3d.sparse.tensor import SparseTensor


class Convolution(nn.Module):
    """Convolution without bias: odd kernel and stride 1, kernel 2 and stride 2, or kernel 1.

    The parameter `kernel` is (kernel_size^3, in, out), x fastest; (in, out) for kernel 1.
    """

    def __init__(self, in_channels: int, out_channels: int, kernel_size: int = 3, stride: int = 1) -> None:
        super().__init__()
        if not ((stride == 1 and kernel_size % 2) or (stride == 2 and kernel_size == 2)):
            raise ValueError(f"no convolution of kernel {kernel_size} and stride {stride}")
        self.kernel_size, self.stride = kernel_size, stride
        shape = (in_channels, out_channels) if kernel_size == 1 else (kernel_size**3, in_channels, out_channels)
        self.kernel = nn.Parameter(torch.empty(shape))
        # Kaiming normal for ReLU with the fan of the outputs; for a matrix that of the inputs, since the published rule
        # mistakes its first axis for the outputs.
        fan = in_channels if kernel_size == 1 else kernel_size**3 * out_channels
        nn.init.normal_(self.kernel, std=math.sqrt(2 / fan))

    def forward(self, x: SparseTensor) -> SparseTensor:
        """Convolve V x in -> V x out on the same voxels, or for stride 2 on those of the next coarser level."""
        features = x.features.to(autocast_type(x.features))
        if self.kernel_size == 1:
            return x.with_features(x.manager.pointwise(features, self.kernel, x.stride))
        if self.stride == 2:
            return SparseTensor(x.manager.downsample(features, self.kernel, x.stride), 2 * x.stride, x.manager)
        return x.with_features(x.manager.convolve(features, self.kernel, x.stride, self.kernel_size))

    def extra_repr(self) -> str:
        return f"{self.kernel.shape[-2]}, {self.kernel.shape[-1]}, kernel_size={self.kernel_size}, stride={self.stride}"


class TransposedConvolution(nn.Module):
    """2x2x2 transposed convolution of stride 2 without bias, back to the voxels of the next finer level.

    The parameter `kernel` is (8, in, out).
    """

    def __init__(self, in_channels: int, out_channels: int) -> None:
        super().__init__()
        self.kernel = nn.Parameter(torch.empty(8, in_channels, out_channels))
        bound = 1 / math.sqrt(8 * out_channels)
        nn.init.uniform_(self.kernel, -bound, bound)

    def forward(self, x: SparseTensor) -> SparseTensor:
        """Convolve V x in at stride s -> V' x out at stride s / 2."""
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


def normed_convolution(
    convolution: Convolution | TransposedConvolution,
    norm: BatchNorm,
    x: SparseTensor,
    *,
    shortcut: SparseTensor | None = None,
    relu: bool = True,
) -> SparseTensor:
    """Apply a convolution and batch norm, add a shortcut and apply ReLU, in place where nothing else needs the values.

    Args:
        x: V x in.
        shortcut: V' x out on the voxels of the result, or None.
        relu: apply ReLU at the end.

    Returns:
        V' x out.
    """
    y = norm(convolution(x))
    out = y.features if shortcut is None else y.features.add_(shortcut.features)
    return y.with_features(functional.relu_(out) if relu else out)
