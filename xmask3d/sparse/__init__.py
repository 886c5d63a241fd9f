"""Sparse 3D convolution: tensors, kernel maps, layers, and back ends behind one small interface."""

from xmask3d.sparse.backend import CoordinateManager, coordinate_manager
from xmask3d.sparse.layers import BatchNorm, Convolution, TransposedConvolution, normed_convolution
from xmask3d.sparse.tensor import SparseTensor, Voxels, concatenate, max_pool_samples, sparse_tensor

__all__ = [
    "BatchNorm",
    "Convolution",
    "CoordinateManager",
    "SparseTensor",
    "TransposedConvolution",
    "Voxels",
    "concatenate",
    "coordinate_manager",
    "max_pool_samples",
    "normed_convolution",
    "sparse_tensor",
]
