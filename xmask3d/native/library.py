"""Compiled library, and addresses of tensors for its calls."""

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
        BuildError: it is not available on this machine.
    """
    return load_library()


def failure_of(loops: str, check: Callable[[], None] | None = None) -> str:
    """Return the reason why loops cannot be used on this machine, or an empty string.

    Args:
        loops: purpose of the loops, for the log.
        check: function that compares them with plain code, and raises `BuildError` if they differ.
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
    """Return the address of a tensor's numbers plus `offset` bytes; null for None."""
    return c_void_p(None if tensor is None else tensor.data_ptr() + offset)


def threads() -> c_int:
    """Return the number of threads used by torch and the loops."""
    return c_int(torch.get_num_threads())
