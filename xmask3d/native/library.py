"""The compiled library, and what its calls need of tensors."""

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
    """The compiled library.

    Raises:
        BuildError: it cannot be had here.
    """
    return load_library()


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


def threads() -> c_int:
    """How many threads torch uses, and so the loops."""
    return c_int(torch.get_num_threads())
