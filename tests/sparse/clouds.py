"""Small voxel clouds, and dense tensors that hold the same values."""

import torch
from torch import Tensor


def random_cloud(count: int = 150, extent: int = 8, batch_size: int = 2, lowest: int = -5, seed: int = 0) -> Tensor:
    """`count` distinct int32 rows (batch, x, y, z) in random order, batch items mixed."""
    generator = torch.Generator().manual_seed(seed)
    cells = torch.randperm(batch_size * extent**3, generator=generator)[:count]
    axes = [cells // extent**power % extent + lowest for power in (2, 1, 0)]
    return torch.stack([cells // extent**3, *axes], 1).int()


def to_dense(coordinates: Tensor, features: Tensor, lowest: int, extent: int, stride: int = 1) -> Tensor:
    """Rows as B x C x Z x Y x X, zero elsewhere; cell 0 is the coordinate `lowest`, one cell a `stride`."""
    batch, cells = coordinates[:, 0].long(), ((coordinates[:, 1:] - lowest) // stride).long()
    dense = features.new_zeros((int(batch.max()) + 1, extent, extent, extent, features.shape[1]))
    dense = dense.index_put((batch, cells[:, 2], cells[:, 1], cells[:, 0]), features)
    return dense.permute(0, 4, 1, 2, 3)


def at_voxels(dense: Tensor, coordinates: Tensor, lowest: int, stride: int = 1) -> Tensor:
    """The rows of a B x C x Z x Y x X tensor at given coordinates."""
    batch, cells = coordinates[:, 0].long(), ((coordinates[:, 1:] - lowest) // stride).long()
    return dense.permute(0, 2, 3, 4, 1)[batch, cells[:, 2], cells[:, 1], cells[:, 0]]


def dense_kernel(kernel: Tensor) -> Tensor:
    """K^3 x A x B, x fastest, as the B x A x K x K x K of `conv3d`."""
    size = round(kernel.shape[0] ** (1 / 3))
    return kernel.view(size, size, size, *kernel.shape[1:]).permute(4, 3, 0, 1, 2)
