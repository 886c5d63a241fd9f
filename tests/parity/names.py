"""From the names of diffusers' networks to those of a CompVis checkpoint, the published layout of Stable Diffusion."""

import re
from collections.abc import Callable

_UNET_RESNET = {
    "norm1": "in_layers.0",
    "conv1": "in_layers.2",
    "time_emb_proj": "emb_layers.1",
    "norm2": "out_layers.0",
    "conv2": "out_layers.3",
    "conv_shortcut": "skip_connection",
}
_UNET_ENDS = {
    "time_embedding.linear_1": "time_embed.0",
    "time_embedding.linear_2": "time_embed.2",
    "conv_in": "input_blocks.0.0",
    "conv_norm_out": "out.0",
    "conv_out": "out.2",
}
_VAE_ATTENTION = {"group_norm": "norm", "to_q": "q", "to_k": "k", "to_v": "v", "to_out.0": "proj_out"}


def compvis_unet_names(layers_per_block: int, attention_in_up_block: Callable[[int], bool]) -> Callable[[str], str]:
    """A function from names of `UNet2DConditionModel` to names after `model.diffusion_model.`.

    Args:
        layers_per_block: of the UNet's configuration.
        attention_in_up_block: whether the up block of that index has cross-attention.
    """
    per_block = layers_per_block + 1

    def rename(name: str) -> str:
        module, _, leaf = name.rpartition(".")
        if module in _UNET_ENDS:
            return f"{_UNET_ENDS[module]}.{leaf}"
        if match := re.match(r"mid_block\.(resnets|attentions)\.(\d)\.(.*)", name):
            kind, index, rest = match[1], int(match[2]), match[3]
            place = 1 if kind == "attentions" else 2 * index
            return f"middle_block.{place}.{_inside(kind, rest)}"
        match = re.match(r"(down|up)_blocks\.(\d+)\.(\w+)\.(\d+)\.(.*)", name)
        if match is None:
            raise ValueError(f"{name}: not a parameter of UNet2DConditionModel")
        direction, block, kind, index, rest = match[1], int(match[2]), match[3], int(match[4]), match[5]
        first = block * per_block + (direction == "down")
        group = "input_blocks" if direction == "down" else "output_blocks"
        if kind == "downsamplers":
            return f"{group}.{first + layers_per_block}.0.{rest.replace('conv', 'op', 1)}"
        if kind == "upsamplers":
            return f"{group}.{first + layers_per_block}.{1 + attention_in_up_block(block)}.{rest}"
        return f"{group}.{first + index}.{int(kind == 'attentions')}.{_inside(kind, rest)}"

    return rename


def compvis_vae_names(levels: int) -> Callable[[str], str]:
    """A function from names of `AutoencoderKL` with so many levels to names after `first_stage_model.`."""

    def rename(name: str) -> str:
        name = re.sub(r"down_blocks\.(\d+)\.resnets", r"down.\1.block", name)
        name = re.sub(r"down_blocks\.(\d+)\.downsamplers\.0", r"down.\1.downsample", name)
        name = re.sub(r"up_blocks\.(\d+)\.resnets", lambda m: f"up.{levels - 1 - int(m[1])}.block", name)
        name = re.sub(r"up_blocks\.(\d+)\.upsamplers\.0", lambda m: f"up.{levels - 1 - int(m[1])}.upsample", name)
        name = re.sub(r"mid_block\.resnets\.(\d)", lambda m: f"mid.block_{int(m[1]) + 1}", name)
        if match := re.match(r"(.*)mid_block\.attentions\.0\.(.*)\.(\w+)$", name):
            return f"{match[1]}mid.attn_1.{_VAE_ATTENTION[match[2]]}.{match[3]}"
        return name.replace("conv_shortcut", "nin_shortcut").replace("conv_norm_out", "norm_out")

    return rename


def _inside(kind: str, rest: str) -> str:
    if kind == "attentions":
        return rest
    module, _, leaf = rest.rpartition(".")
    return f"{_UNET_RESNET[module]}.{leaf}"
