"""Recorded cases on a GPU: whatever the runners make, or read from NumPy, is made there."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.overrides import TorchFunctionMode
from torch.utils._device import _device_constructors


class _OnDevice(TorchFunctionMode):
    """Tensors are made on a device, unless the caller names one or draws from a generator of the CPU."""

    def __init__(self, device: torch.device) -> None:
        super().__init__()
        self.device = device

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = dict(kwargs or {})
        if func not in _device_constructors() or kwargs.get("device") is not None:
            return func(*args, **kwargs)
        if kwargs.get("generator") is not None and kwargs["generator"].device.type == "cpu":
            return func(*args, **kwargs).to(self.device)
        return func(*args, **{**kwargs, "device": self.device})


@contextmanager
def on_device(device: torch.device | str) -> Iterator[None]:
    """Let the runners, which know of no device, compute on one, in float32 without TF32."""
    device = torch.device(device)
    if device.type == "cpu":
        yield
        return
    from_numpy = torch.from_numpy

    def moved(array: np.ndarray) -> Tensor:
        return from_numpy(array).to(device)

    kept = torch.backends.cudnn.allow_tf32, torch.backends.cuda.matmul.allow_tf32
    torch.backends.cudnn.allow_tf32 = torch.backends.cuda.matmul.allow_tf32 = False
    torch.from_numpy = moved
    try:
        with _OnDevice(device):
            yield
    finally:
        torch.from_numpy = from_numpy
        torch.backends.cudnn.allow_tf32, torch.backends.cuda.matmul.allow_tf32 = kept
