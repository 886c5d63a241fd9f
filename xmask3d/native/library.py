"""Compiled library, and the access of its calls to tensors."""

import functools
import logging
from collections.abc import Callable
from ctypes import CDLL, c_int, c_void_p

import torch
from torch import Tensor

from xmask3d.native.compiler import BuildError, load_library

log = logging.getLogger(__name__)


@functools.cache
def library() -> CDLL:
    """Load the compiled library.

    Raises:
        BuildError: it cannot be had here.
    """
    return load_library()


def failure_of(loops: str, check: Callable[[], None] | None = None) -> str:
    """Return the reason why loops cannot be used on this machine; empty if they can.

    Args:
        loops: purpose of the loops, for the log.
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
    """Return the address of a tensor's numbers, `offset` bytes further on; null for none."""
    return c_void_p(None if tensor is None else tensor.data_ptr() + offset)


def threads() -> c_int:
    """Return the number of threads that torch uses, and with it the loops."""
    return c_int(torch.get_num_threads())
