"""Small networks of Stable Diffusion's architecture."""

import torch
from diffusers import AutoencoderKL, UNet2DConditionModel
from torch import Tensor

from tests.parity.filler import fill_module, random_normal
from tests.parity.names import compvis_unet_names, compvis_vae_names
from xmask3d.models.conditioner import ImplicitConditioner
from xmask3d.models.loading.diffusion_weights import UNET_CONFIG_1, UNET_CONFIG_2, VAE_CONFIG

PREFIX = "backbone.feature_extractor."
VAE_PREFIX = PREFIX + "ldm_extractor.ldm.ldm.first_stage_model."
UNET_PREFIX = PREFIX + "ldm_extractor.ldm.ldm.model.diffusion_model."

SMALL_VAE = {**VAE_CONFIG, "block_out_channels": [32, 64, 128, 128]}
SMALL_UNET_1 = {**UNET_CONFIG_1, "block_out_channels": [32, 64, 128, 128], "cross_attention_dim": 64}
SMALL_UNET_2 = {**UNET_CONFIG_2, "block_out_channels": [64, 128, 256, 256], "cross_attention_dim": 128}
SMALL_UNET_2["attention_head_dim"] = [1, 2, 4, 4]


def rename_unet(name: str) -> str:
    return compvis_unet_names(2, lambda block: block > 0)(name)


def rename_vae(name: str) -> str:
    return compvis_vae_names(4)(name)


def recorded_networks() -> tuple[AutoencoderKL, UNet2DConditionModel]:
    """The whole networks of the recorded small case."""
    vae, unet = AutoencoderKL.from_config(SMALL_VAE), UNet2DConditionModel.from_config(SMALL_UNET_1)
    fill_module(vae, VAE_PREFIX, rename_vae)
    fill_module(unet, UNET_PREFIX, rename_unet)
    return vae.eval(), unet.eval()


def recorded_conditioner() -> ImplicitConditioner:
    empty_prompt = torch.from_numpy(random_normal("e_ldm.uncond_inputs", (1, 77, 64), 0.5))
    conditioner = ImplicitConditioner(768, empty_prompt, 128)
    fill_module(conditioner, PREFIX)
    return conditioner


def compvis_state(vae: AutoencoderKL, unet: UNet2DConditionModel) -> dict[str, Tensor]:
    """Tensors of whole networks as a CompVis checkpoint names and shapes them."""
    state = {}
    for name, tensor in vae.state_dict().items():
        published = rename_vae(name)
        # There, attention in the VAE is made of 1x1 convolutions.
        is_projection = "attn_1" in published and tensor.ndim == 2
        state["first_stage_model." + published] = tensor[:, :, None, None] if is_projection else tensor
    for name, tensor in unet.state_dict().items():
        state["model.diffusion_model." + rename_unet(name)] = tensor
    return {name: tensor.clone() for name, tensor in state.items()}
