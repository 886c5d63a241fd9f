"""Activation checkpointing, chosen by the memory that a GPU has."""

import math

import torch

from xmask3d.config import Config
from xmask3d.engine.batch_norm import micro_batches

# GiB of a training step of the published network, computed by tools/studies/memory.py: a constant part, and per view.
ITSELF = 5.5
EACH_VIEW = {"float32": (2.40, 1.97), "bfloat16": (2.02, 1.68)}  # at 512 x 512, without and with checkpointing
UNSEEN, WASTE = 1.0, 1.1  # GiB of the CUDA context and cuDNN; reserved over allocated memory


def choose_checkpointing(config: Config, processes: int, device: torch.device) -> tuple[Config, str | None]:
    """Decide `model.checkpointing=auto` for a training.

    Args:
        processes: number of processes that share a step.
        device: device of this process; those of other processes are assumed equal. Without a GPU nothing is recomputed.

    Returns:
        The configuration with the decision, and a line about it; None where there was nothing to decide.
    """
    if config.model.checkpointing != "auto":
        return config, None
    train, size = config.train, math.prod(config.data.image_size) / 512**2
    views = train.batch_size // (processes * micro_batches(train, processes))
    kept, recomputed = (ITSELF + views * size * each for each in EACH_VIEW.get(train.precision, EACH_VIEW["bfloat16"]))
    total = torch.cuda.get_device_properties(device).total_memory / 2**30 if device.type == "cuda" else math.inf
    on = UNSEEN + WASTE * kept > total
    line = f"model.checkpointing=auto: {'on' if on else 'off'}"
    if on or total < math.inf:
        line += f"; a step of {views} views takes about {kept:.0f} GiB, {recomputed:.0f} with it, of {total:.0f}"
    if UNSEEN + WASTE * recomputed > total:
        line += ": probably too much; lower train.samples_per_process, as config/card-24gb.yaml does"
    return config.model_copy(update={"model": config.model.model_copy(update={"checkpointing": on})}), line
