"""Diffusion features and their gradients."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import torch
from diffusers import AutoencoderKL, UNet2DConditionModel

from tests.parity.compare import Case, Results
from tests.parity.filler import fill_module, random_normal
from tests.parity.names import compvis_unet_names, compvis_vae_names
from xmask3d.errors import UserError
from xmask3d.models.conditioner import ImplicitConditioner
from xmask3d.models.diffusion import FIRST_BETA, DiffusionFeatures, shared_noise
from xmask3d.models.loading.diffusion_weights import UNET_CONFIG_1, VAE_CONFIG

PREFIX = "backbone.feature_extractor."
SMALL_VAE = {**VAE_CONFIG, "block_out_channels": [32, 64, 128, 128]}
SMALL_UNET = {**UNET_CONFIG_1, "block_out_channels": [32, 64, 128, 128], "cross_attention_dim": 64}


def filled_networks(
    vae_config: Mapping[str, Any], unet_config: Mapping[str, Any]
) -> tuple[AutoencoderKL, UNet2DConditionModel]:
    """Whole networks of Stable Diffusion 1's architecture with stand-in weights."""
    with torch.device("meta"):  # no first values, which take seconds: all are filled in below
        vae, unet = AutoencoderKL.from_config(dict(vae_config)), UNet2DConditionModel.from_config(dict(unet_config))
    vae, unet = (network.to_empty(device=torch.get_default_device()) for network in (vae, unet))
    fill_module(vae, f"{PREFIX}ldm_extractor.ldm.ldm.first_stage_model.", compvis_vae_names(4))
    rename = compvis_unet_names(unet.config.layers_per_block, lambda block: block > 0)
    fill_module(unet, f"{PREFIX}ldm_extractor.ldm.ldm.model.diffusion_model.", rename)
    return vae.eval(), unet.eval()


def empty_prompt(context_dim: int) -> torch.Tensor:
    """The stand-in for the empty prompt's embedding: 1 x 77 x context_dim."""
    return torch.from_numpy(random_normal("e_ldm.uncond_inputs", (1, 77, context_dim), 0.5))


def filled_conditioner(
    global_dim: int, context_dim: int, time_dim: int, prompt: torch.Tensor | None = None
) -> ImplicitConditioner:
    """The conditioner with stand-in weights, and the stand-in for the empty prompt unless that is given."""
    prompt = empty_prompt(context_dim) if prompt is None else prompt
    conditioner = ImplicitConditioner(global_dim, prompt, time_dim)
    fill_module(conditioner, PREFIX)
    return conditioner


@torch.no_grad()
def run_features(case: Case) -> Results:
    """e_ldm_small, e_ldm_full: the eight maps, and what they are made of."""
    results = Results()
    vae, unet = filled_networks(*_configs(case))
    images, cond = case.tensor("image"), case.tensor("cond")
    text, time = _conditioner(case, cond, unet)(cond)
    # Before truncation: what lies behind the last map shows that the weights are all in their places.
    latent = vae.encode(images * 2 - 1).latent_dist.mean
    results.forward("decoded", vae.decode(latent).sample)
    whole = _UNetTail(unet)
    features = _features(case, vae, unet)
    encoded = features.encode(images)
    maps = features(encoded, text, time)
    results.forward("unet_out", whole(maps[5], text, unet.time_embedding(_time_zero(unet, images)) + time))
    for index, x in enumerate(maps):
        results.forward(f"feature{index}", x)
    results.forward("latent", encoded.latent)
    results.forward("noisy_latent", features.add_noise(encoded.latent))
    results.forward("cond_inputs", text)
    results.forward("cond_emb", time)
    results.exact("t", np.zeros(len(images), np.int64))
    noise = features.add_noise(torch.zeros_like(encoded.latent[:1])) / features.noise_rate
    results.forward("resized_noise", noise)
    return results


def _configs(case: Case) -> tuple[dict[str, Any], dict[str, Any]]:
    """Networks in the widths of the given channels of the maps, else in those that belong to the case's name."""
    if "feature_dims" not in case.inputs:
        return (dict(VAE_CONFIG), dict(UNET_CONFIG_1)) if "full" in case.name else (SMALL_VAE, SMALL_UNET)
    channels = case.sizes("feature_dims")
    # The first map has four times the width of the VAE, the third eight times that of the UNet.
    vae_width, unet_width = channels[0] // 4, channels[2] // 8
    default = UNET_CONFIG_1 if unet_width == UNET_CONFIG_1["block_out_channels"][0] else SMALL_UNET
    shape = case.sizes("uncond_inputs_shape", (default["cross_attention_dim"],))
    context = case.inputs["uncond_inputs"].shape[-1] if "uncond_inputs" in case.inputs else shape[-1]
    unet = {**UNET_CONFIG_1, "block_out_channels": [unet_width * factor for factor in (1, 2, 4, 4)]}
    vae = {**VAE_CONFIG, "block_out_channels": [vae_width * factor for factor in (1, 2, 4, 4)]}
    return vae, {**unet, "cross_attention_dim": int(context)}


def _conditioner(case: Case, cond: torch.Tensor, unet: UNet2DConditionModel) -> ImplicitConditioner:
    """The conditioner with the given embedding of the empty prompt, else with the one drawn by its name."""
    context = unet.config.cross_attention_dim
    prompt = case.tensor("uncond_inputs") if "uncond_inputs" in case.inputs else empty_prompt(context)
    case.verify_drawn("uncond_inputs", prompt.cpu().numpy())
    return filled_conditioner(cond.shape[1], context, unet.time_embedding.linear_2.out_features, prompt)


def _features(case: Case, vae: AutoencoderKL, unet: UNet2DConditionModel) -> DiffusionFeatures:
    """The package's features with the noise and the noise level that the case gives; truncates the networks.

    Raises:
        UserError: the maps have other channels or strides than given.
    """
    noise = case.tensor("shared_noise") if "shared_noise" in case.inputs else shared_noise()
    case.verify_drawn("shared_noise", noise.cpu().numpy())
    rate = case.inputs.get("sqrt_one_minus_alphas_cumprod_t0")
    beta = FIRST_BETA if rate is None else float(rate) ** 2
    features = DiffusionFeatures(vae, unet, noise=noise, first_beta=beta, scaling_factor=vae.config.scaling_factor)
    for name, ours in (("feature_dims", features.channels), ("feature_strides", features.strides)):
        if case.sizes(name, tuple(ours)) != tuple(ours):
            raise UserError(f"case {case.name}: {name} is {case.sizes(name)}, here {tuple(ours)}")
    return features


class _UNetTail:
    """What follows the last map in the whole UNet; made before the UNet is truncated."""

    def __init__(self, unet: UNet2DConditionModel) -> None:
        last = unet.up_blocks[-1]
        self.resnet, self.attention = last.resnets[-1], last.attentions[-1]
        self.norm, self.conv = unet.conv_norm_out, unet.conv_out

    def __call__(self, x: torch.Tensor, text: torch.Tensor, time: torch.Tensor) -> torch.Tensor:
        x = self.attention(self.resnet(x, time), encoder_hidden_states=text, return_dict=False)[0]
        return self.conv(torch.nn.functional.silu(self.norm(x)))


def _time_zero(unet: UNet2DConditionModel, like: torch.Tensor) -> torch.Tensor:
    return unet.time_proj(like.new_zeros(len(like))).to(like.dtype)


def run_gradients(case: Case) -> Results:
    """e_ldm_small_grad: gradients of the maps' energy with respect to the condition and its networks, in float64."""
    results = Results()
    vae, unet = filled_networks(*_configs(case))
    cond = case.tensor("cond", torch.float64).requires_grad_()
    conditioner = _conditioner(case, cond, unet).double()
    features = _features(case, vae, unet).double()
    maps = features(features.encode(case.tensor("image", torch.float64)), *conditioner(cond))
    loss = torch.stack([0.5 * x.square().mean() for x in maps]).sum()
    loss.backward()
    results.forward("loss", loss)
    results.gradient("grad_cond", cond.grad)
    for name, parameter in conditioner.named_parameters():
        results.gradient(f"grad_{name}", parameter.grad)
    return results
