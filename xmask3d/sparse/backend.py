"""Interface of a back end of sparse convolution, and the choice of one by name."""

from abc import ABC, abstractmethod
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional

from xmask3d.errors import UserError
from xmask3d.sparse.convolution import strided_convolution, submanifold_convolution, transposed_convolution
from xmask3d.sparse.coordinates import CoordinateMaps

BACKENDS = ("auto", "native", "torch", "spconv", "minkowski")


class CoordinateManager(ABC):
    """Coordinates of one batch at every level, and the convolutions on them.

    It is made once per batch and shared by all networks, so that kernel maps are built once. Features at a level have
    one row for each row of `coordinates(stride)`, whose order may differ from that of the input (see `arrange`).
    """

    batch_size: int

    @abstractmethod
    def coordinates(self, stride: int) -> Tensor:
        """Return v x 4 int32 rows (batch, x, y, z) at a tensor stride, in units of the finest grid."""

    @abstractmethod
    def arrange(self, rows: Tensor) -> Tensor:
        """Reorder rows from the order of the input coordinates to that of `coordinates(1)`."""

    @abstractmethod
    def restore(self, rows: Tensor) -> Tensor:
        """Invert `arrange`."""

    @abstractmethod
    def convolve(self, features: Tensor, weight: Tensor, stride: int, kernel_size: int) -> Tensor:
        """Apply a submanifold convolution at a level: V x A features, K^3 x A x B weight -> V x B."""

    def pointwise(self, features: Tensor, weight: Tensor, stride: int) -> Tensor:
        """Apply a convolution of kernel 1 at a level: V x A features, A x B weight -> V x B."""
        return functional.linear(features, weight.t())

    @abstractmethod
    def downsample(self, features: Tensor, weight: Tensor, stride: int) -> Tensor:
        """Apply a 2x2x2 convolution of stride 2 from level `stride` to `2 * stride`; 8 x A x B weight."""

    @abstractmethod
    def upsample(self, features: Tensor, weight: Tensor, stride: int) -> Tensor:
        """Apply a 2x2x2 transposed convolution of stride 2, from level `stride` to `stride / 2`; 8 x A x B weight."""


class _Permutation(torch.autograd.Function):
    """Permutation of rows. Its gradient is the inverse permutation, while the gradient of indexing would sort."""

    @staticmethod
    def forward(ctx: Any, rows: Tensor, order: Tensor, inverse: Tensor) -> Tensor:
        ctx.orders = order, inverse
        return rows.index_select(0, order)

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, None, None]:
        order, inverse = ctx.orders
        return _Permutation.apply(gradient, inverse, order), None, None


class TorchCoordinateManager(CoordinateManager):
    """Back end in plain torch, for every device and dtype."""

    def __init__(self, coordinates: Tensor) -> None:
        self._maps = CoordinateMaps(coordinates)
        self.batch_size = self._maps.batch_size

    def coordinates(self, stride: int) -> Tensor:
        return self._maps.coordinates(stride)

    def arrange(self, rows: Tensor) -> Tensor:
        return _Permutation.apply(rows, self._maps.order, self._maps.rank)

    def restore(self, rows: Tensor) -> Tensor:
        return _Permutation.apply(rows, self._maps.rank, self._maps.order)

    def convolve(self, features: Tensor, weight: Tensor, stride: int, kernel_size: int) -> Tensor:
        return submanifold_convolution(features, weight, self._maps.neighbours(stride, kernel_size))

    def downsample(self, features: Tensor, weight: Tensor, stride: int) -> Tensor:
        return strided_convolution(features, weight, self._maps.stride_map(stride))

    def upsample(self, features: Tensor, weight: Tensor, stride: int) -> Tensor:
        return transposed_convolution(features, weight, self._maps.stride_map(stride // 2))


def coordinate_manager(coordinates: Tensor, backend: str = "auto") -> CoordinateManager:
    """Make the manager of a batch.

    Args:
        coordinates: V x 4 integer rows (batch, x, y, z), no row twice.
        backend: `torch`; `native`, which needs a C++ compiler; `spconv` or `minkowski`, which must be installed; or
            `auto`: on a CPU `native` if it works, on CUDA the fastest of the installed ones, and otherwise `torch`.

    Raises:
        UserError: the back end is unknown or not installed, or the coordinates are faulty.
    """
    if backend not in BACKENDS:
        raise UserError(f"sparse back end '{backend}' is unknown; choose {', '.join(BACKENDS)}")
    if backend == "auto" and coordinates.is_cuda:
        from xmask3d.sparse.fastest import fastest_backend

        backend = fastest_backend(coordinates.device)
    if backend == "spconv":
        from xmask3d.sparse.spconv import SpconvCoordinateManager

        return SpconvCoordinateManager(coordinates)
    if backend == "minkowski":
        from xmask3d.sparse.minkowski import MinkowskiCoordinateManager

        return MinkowskiCoordinateManager(coordinates)
    if backend == "native" or (backend == "auto" and coordinates.is_cpu):
        from xmask3d.sparse.native.kernels import failure
        from xmask3d.sparse.native.manager import NativeCoordinateManager

        if not failure():
            return NativeCoordinateManager(coordinates)
        if backend == "native":
            raise UserError(f"sparse back end 'native' cannot be used here: {failure()}; choose auto or torch")
    return TorchCoordinateManager(coordinates)


def autocast_type(tensor: Tensor) -> torch.dtype:
    """Return the dtype to compute with: that of autocast if it is on and the tensor is not double."""
    kind = tensor.device.type
    if tensor.dtype != torch.float64 and torch.is_autocast_enabled(kind):
        return torch.get_autocast_dtype(kind)
    return tensor.dtype
