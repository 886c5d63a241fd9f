"""What cutting off unused layers of the diffusion model saves in time and memory."""

import argparse
import json
import resource
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from multiprocessing import get_context
from typing import Any, Literal

import torch
import torch.nn.functional as F
from diffusers import AutoencoderKL, UNet2DConditionModel
from torch import Tensor, nn

from xmask3d.errors import run_tool
from xmask3d.models.diffusion import FIRST_BETA, DiffusionFeatures, shared_noise
from xmask3d.models.diffusion_weights import UNET_CONFIG_1, VAE_CONFIG

Variant = Literal["whole", "truncated", "encoded"]
VARIANTS: tuple[Variant, ...] = ("whole", "truncated", "encoded")
SCALING_FACTOR = 0.18215


@dataclass(frozen=True)
class Measurement:
    """Cost of the feature maps of one image.

    Attributes:
        variant: "whole" runs diffusers' networks to their ends and keeps the maps on the way; "truncated" stops at the
            last map; "encoded" also has the VAE's part kept from before.
        forward, step: seconds of a forward, and of a forward with the backward pass to the conditions; the best of
            the repeats.
        forward_cpu, step_cpu: processor seconds of the same runs, on all threads; steadier beside other programs.
        peak: GiB; resident memory of a fresh process on the CPU, allocated device memory on CUDA.
    """

    variant: Variant
    forward: float
    forward_cpu: float
    step: float
    step_cpu: float
    peak: float


def compare(variants: Sequence[Variant] = VARIANTS, **settings: Any) -> Iterator[Measurement]:
    """Measure variants, each in a process of its own, so that peak memory is each one's; settings as of `measure`."""
    for variant in variants:
        with ProcessPoolExecutor(max_workers=1, mp_context=get_context("spawn")) as pool:
            yield pool.submit(measure, variant, **settings).result()


def measure(
    variant: Variant,
    *,
    size: int = 512,
    repeats: int = 2,
    threads: int | None = None,
    device: str = "cpu",
    vae_config: dict[str, Any] = VAE_CONFIG,
    unet_config: dict[str, Any] = UNET_CONFIG_1,
) -> Measurement:
    """Time one variant on one random image with random weights.

    Args:
        size: height and width of the image in pixels.
        threads: of torch; its default if None.
        vae_config, unet_config: of the networks; Stable Diffusion 1.x by default.
    """
    if threads:
        torch.set_num_threads(threads)
    vae = _random_weights(AutoencoderKL, vae_config, device)
    unet = _random_weights(UNet2DConditionModel, unet_config, device)
    image = torch.rand(1, 3, size, size, device=device)
    text = torch.randn(1, 77, unet.config.cross_attention_dim, device=device, requires_grad=True)
    time_condition = torch.zeros(1, unet.time_embedding.linear_2.out_features, device=device, requires_grad=True)
    maps = whole_maps(vae, unet) if variant == "whole" else _truncated_maps(vae, unet, image, variant)
    with torch.no_grad():
        forward = _best(lambda: maps(image, text, time_condition), repeats, device)

    def step() -> None:
        loss = sum(x.square().mean() for x in maps(image, text, time_condition) if x.requires_grad)
        torch.autograd.grad(loss, [text, time_condition])

    return Measurement(variant, *forward, *_best(step, repeats, device), _peak(device))


def whole_maps(vae: AutoencoderKL, unet: UNet2DConditionModel) -> Callable[[Tensor, Tensor, Tensor], list[Tensor]]:
    """The feature maps by diffusers' own forward passes, nothing cut off.

    Returns:
        A function of images (B x 3 x H x W in [0, 1]), text condition and time condition that gives the same maps in
        the same order as `DiffusionFeatures`.
    """
    taps = [block.resnets[-1] for block in vae.encoder.down_blocks[-2:]]
    taps += [block.resnets[-1] for block in unet.up_blocks]
    taps += [block.resnets[-1] for block in vae.decoder.up_blocks[:2]]

    def maps(images: Tensor, text: Tensor, time_condition: Tensor) -> list[Tensor]:
        with _inputs_of(taps) as seen, _added_to(unet.time_embedding, time_condition):
            with torch.no_grad():
                mean = vae.encode(images * 2 - 1).latent_dist.mean
            noise = F.interpolate(shared_noise().to(mean), mean.shape[-2:], mode="bicubic")
            noisy = (1 - FIRST_BETA) ** 0.5 * SCALING_FACTOR * mean + FIRST_BETA**0.5 * noise
            unet(noisy, torch.zeros(len(images), device=images.device), text)
            with torch.no_grad():
                vae.decode(mean)
        return seen

    return maps


HEADER = (
    "| variant | forward s (CPU s) | forward and backward s (CPU s) | peak GiB |",
    "| --- | --- | --- | --- |",
)


def row(m: Measurement) -> str:
    """A measurement as a row of the Markdown table that `HEADER` begins."""
    return f"| {m.variant} | {m.forward:.2f} ({m.forward_cpu:.2f}) | {m.step:.2f} ({m.step_cpu:.2f}) | {m.peak:.2f} |"


def main() -> None:
    """`python -m xmask3d.benchmarks.features`: print a table, or a line of JSON a variant."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--size", type=int, default=512, help="height and width of the image in pixels (default 512)")
    parser.add_argument("--repeats", type=int, default=2, help="runs of each, of which the best counts (default 2)")
    parser.add_argument("--threads", type=int, help="threads of torch (default: its own choice)")
    parser.add_argument("--device", default="cpu", help="cpu or cuda (default cpu)")
    parser.add_argument("--variant", choices=VARIANTS, action="append", help="only this one; may be repeated")
    parser.add_argument("--json", action="store_true", help="print a line of JSON a variant instead of a table")
    arguments = vars(parser.parse_args())
    as_json, variants = arguments.pop("json"), arguments.pop("variant") or VARIANTS
    if not as_json:
        print(*HEADER, sep="\n", flush=True)
    for result in compare(variants, **arguments):
        print(json.dumps(asdict(result)) if as_json else row(result), flush=True)


def _truncated_maps(
    vae: AutoencoderKL, unet: UNet2DConditionModel, image: Tensor, variant: Variant
) -> Callable[[Tensor, Tensor, Tensor], list[Tensor]]:
    features = DiffusionFeatures(vae, unet, scaling_factor=SCALING_FACTOR).to(image.device)
    if variant == "truncated":
        return lambda images, text, time_condition: features(features.encode(images), text, time_condition)
    encoded = features.encode(image)
    return lambda _, text, time_condition: features(encoded, text, time_condition)


def _random_weights(kind: type[nn.Module], config: dict[str, Any], device: str) -> nn.Module:
    """A frozen network; small uniform weights take a fraction of the time of diffusers' own initialisation."""
    with torch.device("meta"):
        network = kind.from_config(dict(config))
    network = network.to_empty(device=device).requires_grad_(False).eval()
    for parameter in network.parameters():
        parameter.uniform_(-0.02, 0.02)
    return network


@contextmanager
def _inputs_of(modules: Sequence[nn.Module]) -> Iterator[list[Tensor]]:
    """Collect the first input of each module, in the order of the calls."""
    seen: list[Tensor] = []
    hooks = [module.register_forward_pre_hook(lambda _, inputs: seen.append(inputs[0])) for module in modules]
    try:
        yield seen
    finally:
        for hook in hooks:
            hook.remove()


@contextmanager
def _added_to(module: nn.Module, addend: Tensor) -> Iterator[None]:
    hook = module.register_forward_hook(lambda _module, _inputs, output: output + addend)
    try:
        yield
    finally:
        hook.remove()


def _best(run: Callable[[], object], repeats: int, device: str) -> tuple[float, float]:
    """Least wall seconds and least processor seconds of some runs."""
    walls, processors = [], []
    for _ in range(repeats):
        wall, processor = time.perf_counter(), time.process_time()
        run()
        if device.startswith("cuda"):
            torch.cuda.synchronize()
        walls.append(time.perf_counter() - wall)
        processors.append(time.process_time() - processor)
    return min(walls), min(processors)


def _peak(device: str) -> float:
    if device.startswith("cuda"):
        return torch.cuda.max_memory_allocated() / 2**30
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20


if __name__ == "__main__":
    run_tool(main)
