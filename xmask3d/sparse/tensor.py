"""Sparse tensor: features of the occupied voxels of a batch."""

from dataclasses import dataclass, replace
from functools import cached_property

import torch
from torch import Tensor

from xmask3d.errors import UserError
from xmask3d.sparse.backend import CoordinateManager, coordinate_manager


@dataclass(frozen=True)
class SparseTensor:
    """Features on the voxels of one level.

    Attributes:
        features: V x C, one row for each row of `coordinates`.
        stride: tensor stride of the level: 1 for the finest grid, then 2, 4 ...
        manager: coordinates of the batch, shared by all its tensors and networks.
    """

    features: Tensor
    stride: int
    manager: CoordinateManager

    @property
    def coordinates(self) -> Tensor:
        """V x 4 int32 rows (batch, x, y, z), multiples of the stride in units of the finest grid."""
        return self.manager.coordinates(self.stride)

    @property
    def batch_size(self) -> int:
        """Number of samples: the largest batch index of the finest level plus one."""
        return self.manager.batch_size

    def with_features(self, features: Tensor) -> "SparseTensor":
        """Return the same voxels with other features (V x C')."""
        return replace(self, features=features)

    def features_as_given(self) -> Tensor:
        """Return V x C features in the order of the batch's input coordinates; on the finest level only."""
        if self.stride != 1:
            raise ValueError(f"rows of stride {self.stride} have no order of their own")
        return self.manager.restore(self.features)


def sparse_tensor(coordinates: Tensor, features: Tensor, backend: str = "auto") -> SparseTensor:
    """Make the sparse tensor of a batch on the finest grid.

    Args:
        coordinates: V x 4 int32 or int64 rows (batch, x, y, z), no row twice, any sign.
        features: V x C.
        backend: see `coordinate_manager`.

    Raises:
        UserError: coordinates are faulty, the back end is missing, or the numbers of features and coordinates differ.
    """
    if features.ndim != 2 or features.shape[0] != coordinates.shape[0]:
        shapes = f"features {tuple(features.shape)} do not fit coordinates {tuple(coordinates.shape)}"
        raise UserError(f"sparse tensor: {shapes}")
    manager = coordinate_manager(coordinates, backend)
    return SparseTensor(manager.arrange(features), 1, manager)


@dataclass(frozen=True)
class Voxels:
    """Occupied voxels of a batch, the input of every 3D network.

    Attributes:
        coordinates: V x 4 int32 or int64 rows (sample, x, y, z), no row twice, any sign.
        features: V x C, colours.
        batch_size: number B of samples, which may include samples without voxels.
        backend: back end of sparse convolutions, see `coordinate_manager`.
    """

    coordinates: Tensor
    features: Tensor
    batch_size: int
    backend: str = "auto"

    @cached_property
    def sparse(self) -> SparseTensor:
        """Sparse tensor of the voxels, made once so that all networks share its kernel maps."""
        return sparse_tensor(self.coordinates, self.features, self.backend)


def concatenate(first: SparseTensor, second: SparseTensor) -> SparseTensor:
    """Join the channels of two tensors on the same voxels; those of `first` come first."""
    if first.manager is not second.manager or first.stride != second.stride:
        raise ValueError("tensors to be joined lie on different voxels")
    return first.with_features(torch.cat([first.features, second.features], 1))


def max_pool_samples(features: Tensor, batch_index: Tensor, num_samples: int) -> Tensor:
    """Return the largest value of every channel over the rows of each sample.

    Args:
        features: V x C.
        batch_index: V integer, sample of each row.
        num_samples: B.

    Returns:
        B x C, zero for a sample without rows.
    """
    index = batch_index.long()[:, None].expand_as(features)
    pooled = features.new_zeros((num_samples, features.shape[1]))
    return pooled.scatter_reduce(0, index, features, "amax", include_self=False)
