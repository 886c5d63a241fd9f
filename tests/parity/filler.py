"""Deterministic stand-in weights: every tensor is drawn from a generator seeded by its own name.

Two programs that name their parameters alike get the same weights without exchanging a file, so their outputs can be
compared. The names are those of a published checkpoint, without a leading `module.`.
"""

import math
import zlib
from collections.abc import Callable, Iterator, Sequence

import numpy as np
import torch
from torch import Tensor, nn

# Extent of the receptive field that a sparse kernel of so many offsets is expected to find occupied.
_OCCUPIED_OFFSETS = {8: 3, 27: 9, 125: 25}
_EMBEDDINGS = {"positional_embedding", "class_embedding", "level_embed"}
_FILLED_BUFFERS = {"running_mean", "running_var", "num_batches_tracked"}


def random_normal(name: str, shape: Sequence[int], scale: float = 1.0) -> np.ndarray:
    """Standard normal numbers times `scale`, float32, from the generator seeded by the CRC-32 of `name`."""
    draw = _generator(name).standard_normal(tuple(shape), dtype=np.float32)
    return np.asarray(draw * np.float32(scale), dtype=np.float32)


def random_uniform(name: str, shape: Sequence[int]) -> np.ndarray:
    """Uniform numbers in [0, 1), float32, from the generator seeded by the CRC-32 of `name`."""
    return _generator(name).random(tuple(shape), dtype=np.float32)


def fill_tensor(name: str, shape: Sequence[int]) -> np.ndarray:
    """The stand-in value of the parameter or batch-norm buffer that a published checkpoint calls `name`.

    Args:
        name: full name in the published checkpoint; its last part decides scale and offset.
        shape: of the tensor.

    Returns:
        float32 array of that shape.
    """
    shape = tuple(shape)
    last = name.rpartition(".")[2]
    if last == "num_batches_tracked":
        return np.zeros(shape, dtype=np.float32)
    noise = random_normal(name, shape)
    if last == "running_var":
        return np.asarray(np.exp(np.float32(0.1) * noise), dtype=np.float32)
    scale, offset = _scale_and_offset(name, last, shape)
    return np.asarray(np.float32(offset) + noise * np.float32(scale), dtype=np.float32)


def fill_module(module: nn.Module, prefix: str = "", rename: Callable[[str], str | None] | None = None) -> None:
    """Overwrite every parameter, and the batch-norm statistics, with the value that its published name stands for.

    Args:
        module: filled in place, whatever its dtype and device.
        prefix: put before every name, with its trailing dot, such as "sem_seg_head.".
        rename: from the name inside `module` to the name after `prefix`; None leaves that tensor alone.
    """
    with torch.no_grad():
        for name, tensor in _fillable(module):
            published = rename(name) if rename else name
            if published is not None:
                value = torch.from_numpy(fill_tensor(prefix + published, tuple(tensor.shape)))
                tensor.copy_(value)


def _generator(name: str) -> np.random.Generator:
    return np.random.Generator(np.random.PCG64(zlib.crc32(name.encode())))


def _fillable(module: nn.Module) -> Iterator[tuple[str, Tensor]]:
    yield from module.named_parameters()
    for name, buffer in module.named_buffers():
        if name.rpartition(".")[2] in _FILLED_BUFFERS:
            yield name, buffer


def _scale_and_offset(name: str, last: str, shape: tuple[int, ...]) -> tuple[float, float]:
    """Scale and offset of a tensor's normal numbers; the first rule that matches wins."""
    if last == "running_mean":
        return 0.1, 0.0
    if last == "logit_scale":
        return 0.1, math.log(1 / 0.07)
    if last.startswith("alpha_cond"):
        return 0.5, 0.0
    if last in _EMBEDDINGS:
        return 0.1, 0.0
    if last == "kernel" and len(shape) == 2:
        return shape[0] ** -0.5, 0.0
    if last == "kernel" and len(shape) == 3:
        occupied = 1 if "convtr" in name else _OCCUPIED_OFFSETS[shape[0]]
        return (shape[1] * occupied) ** -0.5, 0.0
    if len(shape) <= 1:
        return 0.1, 1.0 if last == "weight" else 0.0
    return math.prod(shape[1:]) ** -0.5, 0.0
