"""Precision of the frozen networks on own scans: bfloat16 halves their memory, and is faster on some processors."""

import statistics
import time
from collections.abc import Callable
from typing import Any, Literal

import torch
import torch.nn.functional as F

from xmask3d.config import Config
from xmask3d.native import winograd

Precision = Literal["auto", "float32", "bfloat16"]
WORTH = 1.2  # times as fast, from which on labels may differ in a few places
CHANNELS, SIDE, ROUNDS = 512, 64, 3


def with_precision(config: Config, precision: Precision, device: torch.device) -> Config:
    """Let the frozen diffusion model and CLIP's image tower compute in a type, whatever the model was trained with."""
    if precision == "auto":
        precision = "bfloat16" if device.type == "cpu" and bfloat16_wins() else "float32"
    changes = {"diffusion_precision": precision, "clip_precision": precision}
    return config.model_copy(update={"model": config.model.model_copy(update=changes)})


def bfloat16_wins() -> bool:
    """Return True where this processor multiplies bfloat16 and a convolution is faster with it, which is timed."""
    capabilities: dict[str, Any] = getattr(torch.cpu, "get_capabilities", dict)()  # earlier versions cannot tell
    if not any(capabilities.get(name) for name in ("avx512_bf16", "amx_bf16", "bf16")):
        return False
    x, weight = torch.randn(1, CHANNELS, SIDE, SIDE), torch.randn(CHANNELS, CHANNELS, 3, 3)
    x_half, weight_half = x.bfloat16(), weight.bfloat16()
    with torch.inference_mode():
        wide = lambda: winograd.conv2d(x, weight)  # noqa: E731
        narrow = lambda: F.conv2d(x_half, weight_half, padding=1)  # noqa: E731
        wide(), narrow()  # made ready
        return statistics.median(_seconds(wide) / _seconds(narrow) for _ in range(ROUNDS)) >= WORTH


def _seconds(run: Callable[[], object]) -> float:
    start = time.perf_counter()
    run()
    return time.perf_counter() - start
