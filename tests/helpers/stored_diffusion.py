"""Diffusion networks on disk."""

from pathlib import Path

import torch
from safetensors.torch import save_file
from torch import Tensor

from xmask3d.models.diffusion import DiffusionFeatures
from xmask3d.models.loading.diffusion_weights import WEIGHT_FILES
from xmask3d.models.loading.empty_prompt import EMPTY_PROMPT_FILE


def save_diffusion(folder: Path, features: DiffusionFeatures, empty_prompt: Tensor, dtype: torch.dtype) -> None:
    """Write a folder that `load_diffusion` reads, without the parts that the features do not need.

    Args:
        folder: made if missing.
        empty_prompt: 1 x T x C.
        dtype: of the stored tensors.
    """
    for name, network in (("vae", features.vae), ("unet", features.unet)):
        (folder / name).mkdir(parents=True, exist_ok=True)
        network.save_config(folder / name)
        tensors = {key: tensor.to(dtype).contiguous() for key, tensor in network.state_dict().items()}
        save_file(tensors, folder / name / WEIGHT_FILES[0])
    save_file({"empty_prompt": empty_prompt.to(dtype).contiguous()}, folder / EMPTY_PROMPT_FILE)
