"""Precision of the frozen networks on own scans: bfloat16 halves their memory, and is faster on some processors."""

import statistics
import time
from collections.abc import Callable
from typing import Any, Literal

import torch
import torch.nn.functional as F
from torch import Tensor

from xmask3d.config import Config
from xmask3d.native import winograd

Precision = Literal["auto", "float32", "bfloat16"]
WORTH = 1.2  # smallest speed-up that is worth labels that differ in a few places
CHANNELS, SIDE = 512, 64  # size of a convolution of the VAE
TOKENS, WIDTH = 1024, 1280  # size of a feed-forward layer of the UNet
ROUNDS = 3


def with_precision(config: Config, precision: Precision, device: torch.device) -> Config:
    """Make the frozen diffusion model and CLIP's image tower compute in a dtype, whatever training used."""
    if precision == "auto":
        precision = "bfloat16" if device.type == "cpu" and bfloat16_wins() else "float32"
    changes = {"diffusion_precision": precision, "clip_precision": precision}
    return config.model_copy(update={"model": config.model.model_copy(update=changes)})


def bfloat16_wins() -> bool:
    """Return True if this processor multiplies faster in bfloat16; a convolution and a layer are timed."""
    # earlier versions do not have this function
    capabilities: dict[str, Any] = getattr(torch.cpu, "get_capabilities", dict)()
    if not any(capabilities.get(name) for name in ("avx512_bf16", "amx_bf16", "bf16")):
        return False
    generator = torch.Generator().manual_seed(0)
    x, weight = _random(generator, 1, CHANNELS, SIDE, SIDE), _random(generator, CHANNELS, CHANNELS, 3, 3)
    tokens, layer = _random(generator, TOKENS, WIDTH), _random(generator, 4 * WIDTH, WIDTH)
    narrow_map, narrow_weight, narrow_tokens, narrow_layer = (each.bfloat16() for each in (x, weight, tokens, layer))

    def wide() -> None:
        winograd.conv2d(x, weight)
        F.linear(tokens, layer)

    def narrow() -> None:
        F.conv2d(narrow_map, narrow_weight, padding=1)
        F.linear(narrow_tokens, narrow_layer)

    with torch.inference_mode():
        wide()  # warm-up
        narrow()
        return statistics.median(_seconds(wide) / _seconds(narrow) for _ in range(ROUNDS)) >= WORTH


def _random(generator: torch.Generator, *shape: int) -> Tensor:
    return torch.randn(shape, generator=generator)


def _seconds(run: Callable[[], object]) -> float:
    start = time.perf_counter()
    run()
    return time.perf_counter() - start
