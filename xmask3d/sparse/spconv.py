"""Optional back end on spconv (https://github.com/traveller59/spconv), whose wheels for CUDA install by pip.

On a CPU, version 2.3.8 computes only the forward pass, with one thread. This project never ran it on a GPU.
"""

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from xmask3d.errors import UserError
from xmask3d.sparse.backend import CoordinateManager

COARSEST = 16  # tensor stride; the grid passed to spconv consists of complete cells of this size


class SpconvCoordinateManager(CoordinateManager):
    """Kernel maps made by spconv once per level and size, and its `Native` convolutions; rows keep their order.

    Args:
        coordinates: V x 4 integer rows (batch, x, y, z).

    Raises:
        UserError: spconv is not installed, or would compute wrong sums.
    """

    def __init__(self, coordinates: Tensor) -> None:
        try:
            from spconv.core import ConvAlgo
            from spconv.pytorch import functional, ops
        except ImportError as error:
            raise UserError(
                f"sparse back end 'spconv' needs spconv, which cannot be imported ({error}); install the wheel of your "
                "CUDA, such as pip install spconv-cu126, or use the back end auto"
            ) from error
        if coordinates.is_cpu and torch.get_num_threads() > 1:
            # Threads add to the same rows without a lock, so the sums differ from run to run.
            raise UserError(
                "sparse back end 'spconv' is right with one thread only on a CPU: set OMP_NUM_THREADS=1, or use auto"
            )
        self._functional, self._ops, self._algorithm = functional, ops, ConvAlgo.Native
        self.batch_size = int(coordinates[:, 0].max()) + 1 if len(coordinates) else 0
        # Cells of every level start at multiples of its stride, as in MinkowskiEngine.
        places = coordinates[:, 1:]
        self._origin = torch.div(places.amin(0), COARSEST, rounding_mode="floor") * COARSEST
        places = places - self._origin
        self._extent = [int(size) // COARSEST * COARSEST + COARSEST for size in places.amax(0).tolist()]
        self._rows = {1: torch.cat([coordinates[:, :1], places], 1).int().contiguous()}
        self._maps: dict[tuple[int, int], Any] = {}

    def coordinates(self, stride: int) -> Tensor:
        rows = self._level(stride)
        return torch.cat([rows[:, :1], rows[:, 1:] * stride + self._origin], 1).int()

    def arrange(self, rows: Tensor) -> Tensor:
        return rows

    def restore(self, rows: Tensor) -> Tensor:
        return rows

    def convolve(self, features: Tensor, weight: Tensor, stride: int, kernel_size: int) -> Tensor:
        return self._apply(self._functional.indice_subm_conv, features, weight, stride, kernel_size, len(features))

    def downsample(self, features: Tensor, weight: Tensor, stride: int) -> Tensor:
        rows = len(self._level(2 * stride))
        return self._apply(self._functional.indice_conv, features, weight, stride, 2, rows)

    def upsample(self, features: Tensor, weight: Tensor, stride: int) -> Tensor:
        rows = len(self._level(stride // 2))
        return self._apply(self._functional.indice_inverse_conv, features, weight, stride // 2, 2, rows)

    def _apply(
        self, function: Callable[..., Tensor], features: Tensor, weight: Tensor, stride: int, size: int, rows: int
    ) -> Tensor:
        """Run one of spconv's differentiable functions with the kernel map of a level and size.

        Its autocast is always to float16, whatever torch's is, and it does not support bfloat16. Products are therefore
        computed in float16 for float16 features, and otherwise in float32.
        """
        _, pairs, counts = self._map(stride, size)
        kind = torch.float16 if features.dtype == torch.float16 and features.is_cuda else torch.float32
        filters = spconv_filters(weight.to(kind), size)
        with torch.autocast(features.device.type, enabled=False):
            result = function(features.to(kind).contiguous(), filters, pairs, counts, rows, self._algorithm)
        return result.to(features.dtype)

    def _level(self, stride: int) -> Tensor:
        if stride not in self._rows:
            self._rows[stride] = self._map(stride // 2, 2)[0]
        return self._rows[stride]

    def _map(self, stride: int, size: int) -> Any:
        """Return the number of rows of the result, the pairs of rows per tap, and their counts; size 2 has stride 2."""
        if (stride, size) not in self._maps:
            extent = [length // stride for length in self._extent]
            steps, around = (2, 0) if size == 2 else (1, size // 2)
            self._maps[stride, size] = self._ops.get_indice_pairs(
                self._level(stride), self.batch_size, extent, self._algorithm,
                [size] * 3, [steps] * 3, [around] * 3, [1] * 3, [0] * 3, size != 2,
            )  # fmt: skip
        return self._maps[stride, size]


def spconv_filters(weight: Tensor, size: int) -> Tensor:
    """Convert K^3 x A x B weights with taps along x first to spconv's B x K x K x K x A, with taps along z first."""
    return weight.view(size, size, size, *weight.shape[1:]).permute(4, 2, 1, 0, 3).contiguous()
