"""The compiled library, and what its calls need of tensors."""

import functools
from ctypes import CDLL, c_int, c_int64, c_void_p

import torch
from torch import Tensor

from xmask3d.native.build import load_library


@functools.cache
def library() -> CDLL:
    """The compiled library.

    Raises:
        BuildError: it cannot be had here.
    """
    loaded = load_library()
    for name in ("xm_pairs_of_table", "xm_pairs_of_neighbours"):
        getattr(loaded, name).restype = c_void_p
    loaded.xm_in_frustum.restype = c_int64
    return loaded


def address(tensor: Tensor | None, offset: int = 0) -> c_void_p:
    """Where a tensor's numbers are, `offset` bytes further on; null for none."""
    return c_void_p(None if tensor is None else tensor.data_ptr() + offset)


def threads() -> c_int:
    """How many threads torch uses, and so the loops."""
    return c_int(torch.get_num_threads())
