"""Feature maps of the diffusion model, cut off after the last map, beside the complete graph as published."""

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import torch
import torch.nn.functional as F
from diffusers import AutoencoderKL, UNet2DConditionModel
from torch import Tensor, nn

from tools.benchmark.case import Case, Job, Request
from xmask3d.models.diffusion import FIRST_BETA, DiffusionFeatures, shared_noise
from xmask3d.models.loading.diffusion_weights import UNET_CONFIG_1, VAE_CONFIG

CONTENDERS = ("plain",)
SCALING_FACTOR = 0.18215
SIZE = 512


def cases(request: Request) -> list[Case]:
    """List forward, and forward with the backward pass to the conditions, of one image.

    `xmask3d-kept` has the VAE's part kept from before, `xmask3d-channels-last` another memory layout; `plain` runs
    diffusers' networks to their ends, with gradients of the UNet's weights and its blocks recomputed, in float32.
    """
    found = []
    for step in ("forward", "step"):
        for kind in request.types:
            contenders = ["xmask3d", "xmask3d-channels-last"]
            if kind == "float32":
                contenders += ["xmask3d-kept", *request.against]
            for contender in contenders:
                options: dict[str, str | int | float] = {"step": step, "kind": kind, "size": SIZE}
                name = f"features {SIZE}x{SIZE}, {step}, {kind}"
                found.append(
                    Case("features", name, contender, options, request.device, request.threads, request.repeats)
                )
    return found


def prepare(case: Case, vae_config: dict[str, Any] = VAE_CONFIG, unet_config: dict[str, Any] = UNET_CONFIG_1) -> Job:
    """Prepare networks with random weights (Stable Diffusion 1.x by default) and a random image."""
    torch.manual_seed(0)
    size, plain = int(case.options["size"]), case.contender == "plain"
    vae = _random_weights(AutoencoderKL, vae_config, case.device)
    unet = _random_weights(UNet2DConditionModel, unet_config, case.device)
    image = torch.rand(1, 3, size, size, device=case.device)
    text = torch.randn(1, 77, unet.config.cross_attention_dim, device=case.device, requires_grad=True)
    time_condition = torch.zeros(1, unet.time_embedding.linear_2.out_features, device=case.device, requires_grad=True)
    maps = whole_maps(vae, unet) if plain else _truncated_maps(vae, unet, image, case)
    if case.options["step"] == "forward":
        return Job(torch.no_grad()(lambda: maps(image, text, time_condition)), count=True)
    if plain:
        unet.requires_grad_(True).enable_gradient_checkpointing()

    def step() -> list[Tensor]:
        wanted = [x for x in maps(image, text, time_condition) if x.requires_grad]
        torch.autograd.backward(wanted, [torch.ones_like(x) for x in wanted])
        return wanted

    return Job(step, count=True)


def whole_maps(vae: AutoencoderKL, unet: UNet2DConditionModel) -> Callable[[Tensor, Tensor, Tensor], list[Tensor]]:
    """Compute the feature maps by diffusers' own forward passes, nothing cut off.

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


def _truncated_maps(
    vae: AutoencoderKL, unet: UNet2DConditionModel, image: Tensor, case: Case
) -> Callable[[Tensor, Tensor, Tensor], list[Tensor]]:
    features = DiffusionFeatures(
        vae,
        unet,
        scaling_factor=SCALING_FACTOR,
        dtype=getattr(torch, str(case.options["kind"])),
        channels_last=case.contender == "xmask3d-channels-last",
    ).to(image.device)
    if case.contender != "xmask3d-kept":
        return lambda images, text, time_condition: features(features.encode(images), text, time_condition)
    encoded = features.encode(image)
    return lambda _, text, time_condition: features(encoded, text, time_condition)


def _random_weights(kind: type[nn.Module], config: dict[str, Any], device: str) -> nn.Module:
    """Make a frozen network; small uniform weights take a fraction of the time of diffusers' own initialisation."""
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
