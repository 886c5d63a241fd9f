"""Contender spconv (https://github.com/traveller59/spconv): its maps and products under our networks.

On a CPU, as of 2.3.8, it computes forward only, and with one thread.
"""

from typing import Any

import torch
from torch import Tensor

from xmask3d.errors import UserError
from xmask3d.sparse.backend import CoordinateManager


class SpconvManager(CoordinateManager):
    """Kernel maps made by spconv, once for each level and size, and its `Native` convolutions.

    Args:
        coordinates: V x 4 int32 rows (batch, x, y, z); their order stays.

    Raises:
        UserError: spconv is not installed, or would give wrong sums.
    """

    def __init__(self, coordinates: Tensor) -> None:
        try:
            from spconv.core import ConvAlgo
            from spconv.pytorch import functional, ops
        except ImportError as error:
            raise UserError(f"spconv cannot be imported ({error}): pip install spconv") from error
        if coordinates.is_cpu and torch.get_num_threads() > 1:
            # Threads add to the same rows without a lock; the sums differ from run to run.
            raise UserError("spconv's sums on a CPU are right with one thread only: --threads 1")
        self._functional, self._ops, self._algorithm = functional, ops, ConvAlgo.Native
        self.batch_size = int(coordinates[:, 0].max()) + 1
        # Cells of every level are counted from multiples of its stride, as MinkowskiEngine's are.
        self._origin = torch.div(coordinates[:, 1:].min(0).values, 16, rounding_mode="floor") * 16
        places = coordinates[:, 1:] - self._origin
        self._extent = [int(size) // 16 * 16 + 16 for size in places.max(0).values]
        self._rows = {1: torch.cat([coordinates[:, :1], places], 1).int().contiguous()}
        self._maps: dict[tuple[int, int], Any] = {}

    def coordinates(self, stride: int) -> Tensor:
        rows = self._level(stride)
        return torch.cat([rows[:, :1], rows[:, 1:] * stride + self._origin], 1)

    def arrange(self, rows: Tensor) -> Tensor:
        return rows

    def restore(self, rows: Tensor) -> Tensor:
        return rows

    def convolve(self, features: Tensor, weight: Tensor, stride: int, kernel_size: int) -> Tensor:
        _, pairs, counts = self._map(stride, kernel_size)
        filters = self._filters(weight, kernel_size)
        return self._functional.indice_subm_conv(features, filters, pairs, counts, len(features), self._algorithm)

    def downsample(self, features: Tensor, weight: Tensor, stride: int) -> Tensor:
        rows, pairs, counts = self._map(stride, 2)
        return self._functional.indice_conv(
            features, self._filters(weight, 2), pairs, counts, len(rows), self._algorithm
        )

    def upsample(self, features: Tensor, weight: Tensor, stride: int) -> Tensor:
        _, pairs, counts = self._map(stride // 2, 2)
        rows = len(self._level(stride // 2))
        return self._functional.indice_inverse_conv(
            features, self._filters(weight, 2), pairs, counts, rows, self._algorithm
        )

    @staticmethod
    def _filters(weight: Tensor, size: int) -> Tensor:
        """Convert K^3 x A x B, taps along x first, to spconv's B x K x K x K x A, along z first."""
        return weight.view(size, size, size, *weight.shape[1:]).permute(4, 2, 1, 0, 3).contiguous()

    def _level(self, stride: int) -> Tensor:
        if stride not in self._rows:
            self._rows[stride] = self._map(stride // 2, 2)[0]
        return self._rows[stride]

    def _map(self, stride: int, size: int) -> Any:
        """Return rows of the result, pairs of rows per tap, and their counts; of size 2 with stride 2."""
        if (stride, size) not in self._maps:
            extent = [length // stride for length in self._extent]
            steps, around = (2, 0) if size == 2 else (1, size // 2)
            self._maps[stride, size] = self._ops.get_indice_pairs(
                self._level(stride), self.batch_size, extent, self._algorithm,
                [size] * 3, [steps] * 3, [around] * 3, [1] * 3, [0] * 3, size != 2,
            )  # fmt: skip
        return self._maps[stride, size]
