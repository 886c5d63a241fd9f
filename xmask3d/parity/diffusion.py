"""Diffusion features and their gradients."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import torch
from diffusers import AutoencoderKL, UNet2DConditionModel

from xmask3d.models.conditioner import ImplicitConditioner
from xmask3d.models.diffusion import FIRST_BETA, DiffusionFeatures
from xmask3d.models.diffusion_weights import UNET_CONFIG_1, VAE_CONFIG
from xmask3d.parity.compare import Case, Results
from xmask3d.parity.filler import fill_module, random_normal
from xmask3d.parity.names import compvis_unet_names, compvis_vae_names

PREFIX = "backbone.feature_extractor."
SMALL_VAE = {**VAE_CONFIG, "block_out_channels": [32, 64, 128, 128]}
SMALL_UNET = {**UNET_CONFIG_1, "block_out_channels": [32, 64, 128, 128], "cross_attention_dim": 64}


def filled_networks(
    vae_config: Mapping[str, Any], unet_config: Mapping[str, Any]
) -> tuple[AutoencoderKL, UNet2DConditionModel]:
    """Whole networks of Stable Diffusion 1's architecture with stand-in weights."""
    vae, unet = AutoencoderKL.from_config(dict(vae_config)), UNet2DConditionModel.from_config(dict(unet_config))
    fill_module(vae, f"{PREFIX}ldm_extractor.ldm.ldm.first_stage_model.", compvis_vae_names(4))
    rename = compvis_unet_names(unet.config.layers_per_block, lambda block: block > 0)
    fill_module(unet, f"{PREFIX}ldm_extractor.ldm.ldm.model.diffusion_model.", rename)
    return vae.eval(), unet.eval()


def empty_prompt(context_dim: int) -> torch.Tensor:
    """The stand-in for the empty prompt's embedding: 1 x 77 x context_dim."""
    return torch.from_numpy(random_normal("e_ldm.uncond_inputs", (1, 77, context_dim), 0.5))


def filled_conditioner(global_dim: int, context_dim: int, time_dim: int) -> ImplicitConditioner:
    """The conditioner with stand-in weights."""
    conditioner = ImplicitConditioner(global_dim, empty_prompt(context_dim), time_dim)
    fill_module(conditioner, PREFIX)
    return conditioner


@torch.no_grad()
def run_features(case: Case) -> Results:
    """e_ldm_small, e_ldm_full: the eight maps, and what they are made of."""
    results = Results()
    full = case.name.endswith("full")
    vae, unet = filled_networks(*((VAE_CONFIG, UNET_CONFIG_1) if full else (SMALL_VAE, SMALL_UNET)))
    images, cond = case.tensor("image"), case.tensor("cond")
    conditioner = filled_conditioner(
        cond.shape[1], unet.config.cross_attention_dim, unet.time_embedding.linear_2.out_features
    )
    text, time = conditioner(cond)
    # Before truncation: what lies behind the last map shows that the weights are all in their places.
    latent = vae.encode(images * 2 - 1).latent_dist.mean
    results.forward("decoded", vae.decode(latent).sample)
    whole = _UNetTail(unet)
    features = DiffusionFeatures(vae, unet, scaling_factor=vae.config.scaling_factor)
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
    noise = features.add_noise(torch.zeros_like(encoded.latent[:1])) / FIRST_BETA**0.5
    results.forward("resized_noise", noise)
    return results


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
    vae, unet = filled_networks(SMALL_VAE, SMALL_UNET)
    features = DiffusionFeatures(vae, unet, scaling_factor=vae.config.scaling_factor).double()
    cond = case.tensor("cond", torch.float64).requires_grad_()
    conditioner = filled_conditioner(cond.shape[1], features.context_dim, features.time_dim).double()
    maps = features(features.encode(case.tensor("image", torch.float64)), *conditioner(cond))
    loss = torch.stack([0.5 * x.square().mean() for x in maps]).sum()
    loss.backward()
    results.forward("loss", loss)
    results.gradient("grad_cond", cond.grad)
    for name, parameter in conditioner.named_parameters():
        results.gradient(f"grad_{name}", parameter.grad)
    return results
