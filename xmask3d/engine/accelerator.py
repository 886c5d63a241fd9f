"""Accelerator that runs a model on this machine's devices, in as many processes as were started."""

import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import timedelta

import torch
from accelerate import Accelerator
from accelerate.utils import DistributedDataParallelKwargs, InitProcessGroupKwargs

from xmask3d.errors import UserError, first_line
from xmask3d.memory import keep_freed_memory

MIXED = {"float32": "no", "bfloat16": "bf16", "float16": "fp16"}


def make_accelerator(precision: str, cpu: bool = False) -> Accelerator:
    """Make an accelerator for the GPUs, or for the CPU if there are none.

    Apple's GPU (MPS) has never been measured, so it is only used if `ACCELERATE_TORCH_DEVICE=mps` asks for it.

    Args:
        precision: type of autocast; "float32" for no autocast.
        cpu: run on the CPU even if there are GPUs.

    Raises:
        UserError: float16 without a GPU.
    """
    asked_for_mps = os.environ.get("ACCELERATE_TORCH_DEVICE", "").startswith("mps")
    cpu = cpu or not (torch.cuda.is_available() or asked_for_mps)
    if cpu and precision == "float16":
        raise UserError("train.precision=float16 needs a GPU; use bfloat16 or float32")
    keep_freed_memory()
    # the fuser is not used in a step where no mask covers a point
    unused = DistributedDataParallelKwargs(find_unused_parameters=True)
    # a process may have to wait for another that evaluates far larger scenes
    patience = InitProcessGroupKwargs(timeout=timedelta(hours=4))
    return Accelerator(mixed_precision=MIXED[precision], cpu=cpu, kwargs_handlers=[unused, patience])


def unusable_gpu() -> str | None:
    """Return a warning where the machine has NVIDIA's driver and torch no GPU, unless GPUs are hidden; else None."""
    hidden = os.environ.get("CUDA_VISIBLE_DEVICES") in ("", "-1")
    if hidden or torch.cuda.is_available() or not shutil.which("nvidia-smi"):
        return None
    try:
        torch.cuda.init()
        reason = "it sees none"
    except (RuntimeError, AssertionError) as error:
        reason = first_line(error)
    return (
        f"NVIDIA's driver is here, but torch {torch.__version__} uses no GPU: {reason}; see 'CPU or CUDA' in "
        "installation.md"
    )


def use_training_arithmetic() -> None:
    """Let a GPU round inputs of convolutions to TF32, as in published training, and search for the fastest algorithm.

    All pictures of a run have the same size, so the search is made once.
    """
    torch.backends.cudnn.allow_tf32 = torch.backends.cudnn.benchmark = True


@contextmanager
def evaluation_arithmetic(reference: bool) -> Iterator[None]:
    """Set a GPU's convolutions for an evaluation, whose batches differ in size, and restore them afterwards.

    Args:
        reference: compute in full float32, as the published evaluation does.
    """
    cudnn = torch.backends.cudnn
    kept = cudnn.allow_tf32, cudnn.benchmark
    cudnn.allow_tf32, cudnn.benchmark = not reference, False
    try:
        yield
    finally:
        cudnn.allow_tf32, cudnn.benchmark = kept
