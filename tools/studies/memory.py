"""Memory of a training step on a GPU, tensor by tensor, computed without a GPU.

The step of the published network runs on tensors that pretend to be on a GPU and have shapes but no values; coordinates
of voxels, on which shapes depend, are real. Every tensor is followed from its birth to its death. Not seen, and so not
in the numbers: what operators take inside (workspaces of cuDNN), what the allocator wastes, and CUDA's own context of
about half a GiB. Views show 22 000 points each; published ones have at most 65 000.
"""

import argparse
import weakref
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from typing import Any
from unittest.mock import patch

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from tests.helpers.pretend_cuda import FakeTensor, pretending
from tools.benchmark.full_size import FullSizeStep
from xmask3d.build_untrained import build_untrained, trainable_values
from xmask3d.config import Config, load_config
from xmask3d.errors import run_tool
from xmask3d.models.xmask3d import XMask3D

ADAM = 2 * 4  # bytes that the optimiser keeps for each number that trains
WEIGHTS, BACKWARD, OTHERS = "weights, optimiser, batch", "backward pass", "fusion and losses"
PARTS = {
    "point_encoder": "3D networks",
    "binary_head": "3D networks",
    "image_features": "diffusion",
    "pyramid": "pyramid",
    "pixel_decoder": "pixel decoder",
    "mask_decoder": "mask decoder",
    "mask_clip": "MaskCLIP",
}
"""Names in the table of the parts of `XMask3D`; what other parts make belongs to `OTHERS`."""


@dataclass
class LiveTensors:
    """Bytes of the tensors on the device that are alive.

    Attributes:
        part: part of the network that is running.
        sizes: bytes of what lives, by the part that made it. peak: the largest sum so far, and its parts.
    """

    part: str = WEIGHTS
    sizes: Counter[str] = field(default_factory=Counter)
    peak: Counter[str] = field(default_factory=Counter)
    _known: set[int] = field(default_factory=set)

    def watch(self, plain: Tensor) -> None:
        """Follow the memory of a tensor, which others may share."""
        storage = plain.untyped_storage()
        key, part, size = storage._cdata, self.part, storage.nbytes()
        if key in self._known:
            return
        self._known.add(key)
        self.sizes[part] += size
        weakref.finalize(storage, self._forget, key, part, size)
        if self.sizes.total() > self.peak.total():
            self.peak = self.sizes.copy()

    def _forget(self, key: int, part: str, size: int) -> None:
        self._known.remove(key)
        self.sizes[part] -= size

    @contextmanager
    def running(self, part: str) -> Iterator[None]:
        """Attribute what is made meanwhile to a part."""
        before, self.part = self.part, part
        try:
            yield
        finally:
            self.part = before


def peak_of_step(config: Config, views: int, model: XMask3D | None = None) -> Counter[str]:
    """Return the bytes that are alive when most are, by the part that made them, in a training step of some views.

    Args:
        model: network on "meta"; by default the published one.
    """
    model = build_untrained(config, "meta") if model is None else model
    live = LiveTensors()
    with pretending(), patch.object(FakeTensor, "watch", live.watch), _autocast():
        step = FullSizeStep(model, config, views, "cuda")
        live.sizes[WEIGHTS] += ADAM * trainable_values(model)
        with _named_parts(model, live), live.running(OTHERS):
            total = step.losses()["total"]
        with live.running(BACKWARD):
            total.backward()
    return live.peak


@contextmanager
def _autocast() -> Iterator[None]:
    """Let the GPU's autocast act on tensors that torch takes for the CPU's, and keep norms in float32 as CUDA does."""
    autocast = torch.autocast

    def in_float32(function: Callable[..., Tensor]) -> Callable[..., Tensor]:
        def run(x: Tensor, *arguments: Any, **options: Any) -> Tensor:
            wide = torch.is_autocast_enabled("cpu")
            return function(x.float() if wide else x, *arguments, **options)

        return run

    with ExitStack() as stack:
        stack.enter_context(
            patch.object(torch, "autocast", lambda _, *rest, **options: autocast("cpu", *rest, **options))
        )
        for name in ("layer_norm", "group_norm", "softmax"):
            stack.enter_context(patch.object(F, name, in_float32(getattr(F, name))))
        yield


@contextmanager
def _named_parts(model: nn.Module, live: LiveTensors) -> Iterator[None]:
    wrapped: list[tuple[nn.Module, str]] = []

    def run_as(function: Callable[..., Any], part: str) -> Callable[..., Any]:
        def run(*arguments: Any, **options: Any) -> Any:
            with live.running(part):
                return function(*arguments, **options)

        return run

    for child, part in PARTS.items():
        module = getattr(model, child)
        for name in ("forward", "encode", "embed"):
            if hasattr(module, name):
                object.__setattr__(module, name, run_as(getattr(module, name), part))
                wrapped.append((module, name))
    try:
        yield
    finally:
        for module, name in wrapped:
            object.__delattr__(module, name)


def table(peaks: dict[int, Counter[str]]) -> list[str]:
    """Format peaks by number of views as Markdown."""
    parts = [WEIGHTS, *dict.fromkeys(PARTS.values()), OTHERS, BACKWARD]
    rows = {part: [peak[part] for peak in peaks.values()] for part in parts}
    rows["together"] = [peak.total() for peak in peaks.values()]
    head = ["GiB at the peak, computed", *(f"{views} views" for views in peaks)]
    lines = [" | ".join(head), "|".join(["---"] * len(head))]
    lines += [" | ".join([part, *(f"{size / 2**30:.2f}" for size in sizes)]) for part, sizes in rows.items()]
    return [f"| {line} |" for line in lines]


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("config", nargs="?", default="scannet/B15N4", help="name or YAML file (default %(default)s)")
    parser.add_argument("overrides", nargs="*", metavar="key=value", help="changes, such as model.checkpointing=true")
    parser.add_argument("--views", nargs="+", type=int, default=[16], help="views at once (default 16)")
    options = parser.parse_args()
    config = load_config(options.config, options.overrides)
    print("\n".join(table({views: peak_of_step(config, views) for views in options.views})))


if __name__ == "__main__":
    run_tool(main)
