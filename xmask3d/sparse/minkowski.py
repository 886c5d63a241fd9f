"""Optional back end on MinkowskiEngine, for comparison and for machines where it is installed."""

import collections
import collections.abc
from importlib import import_module
from types import ModuleType
from typing import Any

from torch import Tensor

from xmask3d.errors import UserError
from xmask3d.sparse.backend import CoordinateManager


def import_minkowski() -> ModuleType:
    """Import MinkowskiEngine, which expects `collections` to have classes that Python 3.10 moved.

    Raises:
        UserError: it is not installed.
    """
    for name in ("Sequence", "Mapping", "Iterable", "Callable"):
        if not hasattr(collections, name):
            setattr(collections, name, getattr(collections.abc, name))
    try:
        import MinkowskiEngine
    except ImportError as error:
        raise UserError(
            f"sparse back end 'minkowski' needs MinkowskiEngine, which cannot be imported ({error}); "
            "run scripts/install_minkowski.sh or use the back end auto"
        ) from error
    return MinkowskiEngine


class MinkowskiCoordinateManager(CoordinateManager):
    """Adapter of `MinkowskiEngine.CoordinateManager` and its keys, level by level."""

    def __init__(self, coordinates: Tensor) -> None:
        self._engine = engine = import_minkowski()
        self._modes = import_module("MinkowskiEngineBackend._C").ConvolutionMode
        self._manager = engine.CoordinateManager(D=3)
        key, (_, inverse) = self._manager.insert_and_map(coordinates.int().contiguous(), [1, 1, 1])
        if self._manager.size(key) != coordinates.shape[0]:
            raise UserError("voxel coordinates: the same (batch, x, y, z) row occurs twice; remove duplicates first")
        self._keys = {1: key}
        # The engine's row for each input row; empty if they agree.
        self._rank = inverse.long() if inverse.numel() else None
        self.batch_size = int(coordinates[:, 0].max()) + 1 if coordinates.shape[0] else 0

    def coordinates(self, stride: int) -> Tensor:
        return self._manager.get_coordinates(self._key(stride))

    def arrange(self, rows: Tensor) -> Tensor:
        if self._rank is None:
            return rows
        arranged = rows.new_empty(rows.shape)
        return arranged.index_copy(0, self._rank, rows)

    def restore(self, rows: Tensor) -> Tensor:
        return rows if self._rank is None else rows[self._rank]

    def convolve(self, features: Tensor, weight: Tensor, stride: int, kernel_size: int) -> Tensor:
        return self._apply(self._engine.MinkowskiConvolutionFunction, features, weight, kernel_size, stride, stride)

    def downsample(self, features: Tensor, weight: Tensor, stride: int) -> Tensor:
        return self._apply(self._engine.MinkowskiConvolutionFunction, features, weight, 2, stride, 2 * stride)

    def upsample(self, features: Tensor, weight: Tensor, stride: int) -> Tensor:
        return self._apply(self._engine.MinkowskiConvolutionTransposeFunction, features, weight, 2, stride, stride // 2)

    def _apply(
        self, function: Any, features: Tensor, weight: Tensor, kernel_size: int, source: int, target: int
    ) -> Tensor:
        """Run one of the engine's differentiable functions from the voxels of stride `source` to those of `target`."""
        step = 1 if source == target else 2
        generator = self._engine.KernelGenerator(kernel_size=kernel_size, stride=step, dilation=1, dimension=3)
        keys = self._key(source), self._key(target)
        mode = self._modes.DEFAULT
        weight = weight.to(features.dtype)
        return function.apply(features.contiguous(), weight, generator, mode, *keys, self._manager)

    def _key(self, stride: int) -> Any:
        if stride not in self._keys:
            self._keys[stride] = self._manager.stride(self._key(stride // 2), [2, 2, 2])
        return self._keys[stride]
