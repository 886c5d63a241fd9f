"""The compiled library, and what its calls need of tensors."""

import functools
import logging
from collections.abc import Callable
from ctypes import CDLL, c_int, c_int64, c_void_p

import numpy as np
import torch
from torch import Tensor

from xmask3d.native.compiler import BuildError, load_library

log = logging.getLogger(__name__)


@functools.cache
def library() -> CDLL:
    """The compiled library.

    Raises:
        BuildError: it cannot be had here.
    """
    loaded = load_library()
    for name in ("xm_kernel_map_of_table", "xm_kernel_map_of_neighbours"):
        getattr(loaded, name).restype = c_void_p
    for name in ("xm_in_frustum", "xm_lift", "xm_fuse"):
        getattr(loaded, name).restype = c_int64
    return loaded


def failure_of(loops: str, check: Callable[[], None] | None = None) -> str:
    """Why loops cannot be used on this machine; empty if they can.

    Args:
        loops: what they compute, for the log.
        check: compares them with plain code, and raises `BuildError` where they differ.
    """
    try:
        library()
        if check:
            check()
    except BuildError as error:
        log.info("%s without compiled loops: %s", loops, error)
        return str(error)
    return ""


def address(tensor: Tensor | None, offset: int = 0) -> c_void_p:
    """Where a tensor's numbers are, `offset` bytes further on; null for none."""
    return c_void_p(None if tensor is None else tensor.data_ptr() + offset)


def array_address(array: np.ndarray) -> c_void_p:
    """Where an array's numbers are."""
    return c_void_p(array.ctypes.data)


def threads() -> c_int:
    """How many threads torch uses, and so the loops."""
    return c_int(torch.get_num_threads())
