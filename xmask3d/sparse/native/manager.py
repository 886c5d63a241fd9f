"""The back end whose loops are compiled on the machine that runs them."""

from collections.abc import Callable

import torch
from torch import Tensor

from xmask3d.sparse.backend import TorchCoordinateManager
from xmask3d.sparse.native.functions import convolution, resampling
from xmask3d.sparse.native.kernels import PairLists, has_bfloat16


class NativeCoordinateManager(TorchCoordinateManager):
    """Float32 and bfloat16 on the CPU by compiled loops; all else as the plain torch back end does it.

    Args:
        coordinates: V x 4 integer rows (batch, x, y, z), no row twice.
        low_products: round float32 features, weights and gradients to bfloat16 before they are multiplied, where the
            processor has such products; sums are float32, and results are rounded once more.
    """

    compiled = True

    def __init__(self, coordinates: Tensor, low_products: bool = False) -> None:
        super().__init__(coordinates)
        self.low_products = low_products and has_bfloat16()
        self._neighbour_pairs: dict[tuple[int, int], PairLists] = {}
        self._stride_pairs: dict[int, tuple[PairLists, PairLists]] = {}

    def convolve(self, features: Tensor, weight: Tensor, stride: int, kernel_size: int) -> Tensor:
        if not _suits(features):
            return super().convolve(features, weight, stride, kernel_size)
        pairs = self._neighbours(stride, kernel_size)
        return self._run(lambda rows: convolution(rows, weight, pairs), features)

    def pointwise(self, features: Tensor, weight: Tensor, stride: int) -> Tensor:
        if not _suits(features):
            return super().pointwise(features, weight, stride)
        pairs = self._neighbours(stride, 1)
        return self._run(lambda rows: convolution(rows, weight[None], pairs), features)

    def downsample(self, features: Tensor, weight: Tensor, stride: int) -> Tensor:
        if not _suits(features):
            return super().downsample(features, weight, stride)
        down, up = self._link(stride)
        return self._run(lambda rows: resampling(rows, weight, down, up), features)

    def upsample(self, features: Tensor, weight: Tensor, stride: int) -> Tensor:
        if not _suits(features):
            return super().upsample(features, weight, stride)
        down, up = self._link(stride // 2)
        return self._run(lambda rows: resampling(rows, weight, up, down), features)

    def _run(self, convolve: Callable[[Tensor], Tensor], features: Tensor) -> Tensor:
        """Compute in the features' own type where the processor can, else in float32; or in bfloat16 where wanted."""
        if features.dtype == torch.bfloat16 and not has_bfloat16():
            return convolve(features.float()).to(features.dtype)
        if self.low_products and features.dtype == torch.float32:
            return convolve(features.bfloat16()).to(features.dtype)
        return convolve(features)

    def _neighbours(self, stride: int, kernel_size: int) -> PairLists:
        key = (stride, kernel_size)
        if key not in self._neighbour_pairs:
            keys, bits = self._maps.keys(stride)
            if kernel_size == 1:
                pairs = PairLists.identity(keys.shape[0])
            elif bits < 3 or kernel_size > 17:
                kernel_map = self._maps.neighbours(stride, kernel_size)
                pairs = PairLists.of_table(kernel_map.table, kernel_map.source_rows)
            else:
                pairs = PairLists.of_neighbours(keys, kernel_size, bits)
            self._neighbour_pairs[key] = pairs
        return self._neighbour_pairs[key]

    def _link(self, stride: int) -> tuple[PairLists, PairLists]:
        """Pairs that lead from level `stride` to the next coarser one, and back."""
        if stride not in self._stride_pairs:
            link = self._maps.stride_map(stride)
            fine, coarse = link.slot.shape[0], link.children.shape[0]
            parents = torch.full((fine, 8), coarse, dtype=torch.int32)
            parents.scatter_(1, (link.slot % 8)[:, None], (link.slot // 8).int()[:, None])
            self._stride_pairs[stride] = PairLists.of_table(link.children, fine), PairLists.of_table(parents, coarse)
        return self._stride_pairs[stride]


def _suits(features: Tensor) -> bool:
    return features.is_cpu and features.dtype in (torch.float32, torch.bfloat16)
