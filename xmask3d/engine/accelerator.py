"""Accelerator that runs a model on this machine's devices, in as many processes as were started."""

import os
from datetime import timedelta

import torch
from accelerate import Accelerator
from accelerate.utils import DistributedDataParallelKwargs, InitProcessGroupKwargs

from xmask3d.errors import UserError
from xmask3d.memory import keep_freed_memory

MIXED = {"float32": "no", "bfloat16": "bf16", "float16": "fp16"}


def make_accelerator(precision: str, cpu: bool = False) -> Accelerator:
    """Make an accelerator for the GPUs, or for the CPU if there are none.

    Apple's GPU (MPS), where nobody has measured this, is taken where it is asked for: `ACCELERATE_TORCH_DEVICE=mps`.

    Args:
        precision: autocast type, "float32" for none.
        cpu: leave GPUs alone.

    Raises:
        UserError: float16 without a GPU.
    """
    asked_for_mps = os.environ.get("ACCELERATE_TORCH_DEVICE", "").startswith("mps")
    cpu = cpu or not (torch.cuda.is_available() or asked_for_mps)
    if cpu and precision == "float16":
        raise UserError("train.precision=float16 needs a GPU; use bfloat16 or float32")
    keep_freed_memory()
    unused = DistributedDataParallelKwargs(find_unused_parameters=True)  # no mask covers a point: the fuser rests
    patience = InitProcessGroupKwargs(timeout=timedelta(hours=4))  # one process may evaluate far larger scenes
    return Accelerator(mixed_precision=MIXED[precision], cpu=cpu, kwargs_handlers=[unused, patience])
