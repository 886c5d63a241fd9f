"""Back end with loops that are compiled on the machine that runs them."""

from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

from xmask3d.sparse.backend import TorchCoordinateManager
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


class NativeCoordinateManager(TorchCoordinateManager):
    """Back end of compiled loops for float32 and bfloat16 on the CPU, summed in float32; otherwise plain torch."""

    def __init__(self, coordinates: Tensor) -> None:
        super().__init__(coordinates)
        self._neighbour_maps: dict[tuple[int, int], BlockedKernelMap] = {}
        self._stride_maps: dict[int, tuple[BlockedKernelMap, BlockedKernelMap]] = {}

    def convolve(self, features: Tensor, weight: Tensor, stride: int, kernel_size: int) -> Tensor:
        if not _suits(features):
            return super().convolve(features, weight, stride, kernel_size)
        return convolution(features.float(), weight, self._neighbours(stride, kernel_size)).to(features.dtype)

    def pointwise(self, features: Tensor, weight: Tensor, stride: int) -> Tensor:
        if not _suits(features):
            return super().pointwise(features, weight, stride)
        return convolution(features.float(), weight[None], self._neighbours(stride, 1)).to(features.dtype)

    def downsample(self, features: Tensor, weight: Tensor, stride: int) -> Tensor:
        if not _suits(features):
            return super().downsample(features, weight, stride)
        down, up = self._link(stride)
        return resampling(features.float(), weight, down, up).to(features.dtype)

    def upsample(self, features: Tensor, weight: Tensor, stride: int) -> Tensor:
        if not _suits(features):
            return super().upsample(features, weight, stride)
        down, up = self._link(stride // 2)
        return resampling(features.float(), weight, up, down).to(features.dtype)

    def _neighbours(self, stride: int, kernel_size: int) -> BlockedKernelMap:
        key = (stride, kernel_size)
        if key not in self._neighbour_maps:
            if kernel_size == 1:
                found = BlockedKernelMap.identity(self.coordinates(stride).shape[0])
            else:
                kernel_map = self._maps.neighbours(stride, kernel_size)
                found = BlockedKernelMap.of_table(kernel_map.table, kernel_map.source_rows)
            self._neighbour_maps[key] = found
        return self._neighbour_maps[key]

    def _link(self, stride: int) -> tuple[BlockedKernelMap, BlockedKernelMap]:
        """Return the maps that lead from level `stride` to the next coarser one, and back."""
        if stride not in self._stride_maps:
            link = self._maps.stride_map(stride)
            fine, coarse = link.slot.shape[0], link.children.shape[0]
            parents = torch.full((fine, 8), coarse, dtype=torch.int32)
            parents.scatter_(1, (link.slot % 8)[:, None], (link.slot // 8).int()[:, None])
            tables = (link.children, fine), (parents, coarse)
            down, up = (BlockedKernelMap.of_table(table, rows) for table, rows in tables)
            self._stride_maps[stride] = down, up
        return self._stride_maps[stride]


def _suits(features: Tensor) -> bool:
    return features.is_cpu and features.dtype in (torch.float32, torch.bfloat16)
