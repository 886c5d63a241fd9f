"""Export of pre-trained networks to the files that the loaders of the package read, in half precision."""

import json
from pathlib import Path

import torch
from diffusers import AutoencoderKL, UNet2DConditionModel
from open_clip import CLIP
from safetensors.torch import save_file
from timm.data import IMAGENET_DEFAULT_MEAN, IMAGENET_DEFAULT_STD
from torch import nn

from tools.pretraining.clip_training import model_config
from tools.pretraining.diffusion_training import hidden_states
from tools.pretraining.vocabulary import all_texts
from xmask3d.files import atomic_write
from xmask3d.models.clip_stem import FEATURES
from xmask3d.models.tokenizer import CompactTokenizer, save_words


def export_clip(folder: Path, clip: CLIP, tokenizer: CompactTokenizer) -> None:
    """Write `open_clip_config.json`, `model.safetensors`, `tokenizer_vocabulary.json` and `trained_words.txt`."""
    config = {
        "model_cfg": model_config(tokenizer.vocab_size),
        "preprocess_cfg": {"mean": list(IMAGENET_DEFAULT_MEAN), "std": list(IMAGENET_DEFAULT_STD)},
    }
    atomic_write(folder / "open_clip_config.json", json.dumps(config, indent=1) + "\n")
    _save(folder / "model.safetensors", clip)
    tokenizer.save(folder)
    save_words(folder, all_texts())


def export_diffusion(
    folder: Path, vae: AutoencoderKL, unet: UNet2DConditionModel, clip: CLIP, tokenizer: CompactTokenizer
) -> None:
    """Write `vae/`, `unet/` and `empty_prompt.safetensors`, the text tower's last states for the empty prompt."""
    for name, network in (("vae", vae), ("unet", unet)):
        (folder / name).mkdir(parents=True, exist_ok=True)
        network.save_config(folder / name)
        _save(folder / name / "diffusion_pytorch_model.safetensors", network)
    with torch.no_grad():
        prompt = hidden_states(clip, tokenizer([""]))
    tensors = {"empty_prompt": prompt.half().contiguous()}
    atomic_write(folder / "empty_prompt.safetensors", lambda part: save_file(tensors, part))


def _save(path: Path, network: nn.Module) -> None:
    """Write all tensors but those of the stem's ImageNet blocks, which are not this project's to hand on."""
    tensors = {
        name: tensor.detach().half().contiguous()
        for name, tensor in network.state_dict().items()
        if not name.startswith(f"visual.conv1.{FEATURES}")
    }
    atomic_write(path, lambda part: save_file(tensors, part))
