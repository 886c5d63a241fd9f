"""Network of a configuration without weight files: for names and shapes, or with random numbers for timing."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch

from xmask3d.build import assemble, build_model
from xmask3d.errors import UserError
from xmask3d.models.clip import MaskClip
from xmask3d.models.loading.clip_weights import build_clip, named_config
from xmask3d.models.loading.diffusion_weights import build_diffusion
from xmask3d.resources import find_file

if TYPE_CHECKING:
    from xmask3d.config import Config
    from xmask3d.models.xmask3d import XMask3D

CLIP = "ViT-L-14"
PROMPT_TOKENS, PROMPT_WIDTH = 77, 768


def build_untrained(config: Config, device: str = "meta") -> XMask3D:
    """Build the trainable parts of `config.model` around Stable Diffusion 1 and CLIP ViT-L/14 without weights.

    Args:
        config: configuration; `model.diffusion` is ignored, and `model.clip` only counts if it names a model of
            open_clip.
        device: "meta" for names and shapes only, which takes no memory; "cpu" for random weights.
    """
    clip_config = named_config(config.model.clip.partition("/")[0]) or named_config(CLIP)
    assert clip_config is not None
    with torch.device(device):
        clip = build_clip({**clip_config, "quick_gelu": True})
        diffusion = build_diffusion(
            noise=torch.randn(1, 4, 64, 64),
            checkpointing=config.model.checkpointing is True,
            dtype=getattr(torch, config.model.diffusion_precision),
            channels_last=config.model.diffusion_channels_last,
        )
        return assemble(
            config.model,
            diffusion=(diffusion, torch.randn(1, PROMPT_TOKENS, PROMPT_WIDTH)),
            mask_clip=MaskClip(clip, getattr(torch, config.model.clip_precision)),
            null_embedding=torch.randn(1, clip_config["embed_dim"]),
            frame_size=config.data.frame_size,
            backend=config.sparse.backend,
        )


def network_of(config: Config) -> XMask3D:
    """Build the network that published checkpoints fit; it has no weights, unless a folder gives CLIP's sizes.

    Raises:
        UserError: the configuration names other networks.
    """
    for key in ("image_features", "point_network"):
        if path := getattr(config.model, key):
            raise UserError(f"model.{key} is {path}: published checkpoints are of the built-in networks only")
    return build_model(config).model if has_own_sizes(config) else build_untrained(config)


def has_own_sizes(config: Config) -> bool:
    """Return True if the foundation models are small ones in folders, which no published checkpoint fits."""
    return config.model.clip == "shipped" or find_file(config.model.clip).is_dir()


def trainable_values(model: XMask3D) -> int:
    """Count the trained numbers."""
    return sum(parameter.numel() for parameter in model.parameters() if parameter.requires_grad)
