"""A run of the real classes at sizes that train in seconds: tiny frozen networks, tiny scenes, a configuration."""

import json
from pathlib import Path

import open_clip
import torch
import yaml
from safetensors.torch import save_file

from tests.helpers.scenes import write_scenes
from tests.helpers.stored_diffusion import save_diffusion
from xmask3d.build import build_model
from xmask3d.config import load_config
from xmask3d.models.loading.diffusion_weights import UNET_CONFIG_1, VAE_CONFIG, build_diffusion

WIDTH, CONTEXT = 32, 32
UNET = {"stem": 4, "layers": [1] * 8, "planes": [4, 4, 8, 8, 8, 8, 4, 4], "out_channels": 8}


def write_clip(folder: Path) -> Path:
    """A CLIP of one layer with random weights, in the layout that `load_clip` reads."""
    config = {
        "embed_dim": WIDTH,
        "vision_cfg": {"image_size": 32, "layers": 1, "width": 64, "head_width": 32, "patch_size": 8},
        "text_cfg": {"context_length": 16, "vocab_size": 64, "width": 32, "heads": 2, "layers": 1},
    }
    folder.mkdir(parents=True, exist_ok=True)
    torch.manual_seed(1)
    model = open_clip.CLIP(**config)
    save_file({name: tensor.contiguous() for name, tensor in model.state_dict().items()}, folder / "model.safetensors")
    (folder / "open_clip_config.json").write_text(json.dumps({"model_cfg": config}))
    # Without a word of its own, every byte pair shares one of the rows from 1 to 61.
    (folder / "tokenizer_vocabulary.json").write_text(json.dumps([0]))
    return folder


def write_diffusion(folder: Path) -> Path:
    """A Stable Diffusion of few channels with random weights, in the layout that `load_diffusion` reads."""
    torch.manual_seed(2)
    sizes = {"block_out_channels": [8, 8, 8, 8], "norm_num_groups": 4}
    features = build_diffusion(
        {**VAE_CONFIG, **sizes},
        {**UNET_CONFIG_1, **sizes, "cross_attention_dim": CONTEXT, "attention_head_dim": 2},
    )
    save_diffusion(folder, features, torch.randn(1, 4, CONTEXT), torch.float32)
    return folder


def write_config(root: Path, data: Path | None = None, **changes: dict) -> Path:
    """Tiny frozen networks, tiny scenes (unless `data` has some) and a configuration file that uses them.

    Args:
        root: folder for everything, made when missing.
        data: scenes of `write_scenes`.
        changes: top-level groups of keys merged over the tiny ones.
    """
    data = data or write_scenes(root / "data", {"train": 2, "val": 2}, views=2, spacing=0.1)
    config = {
        "benchmark": "scannet20/B15N4",
        "output": str(root / "run"),
        "data": {
            "root": str(data),
            "image_size": [64, 64],
            "voxel_size": 0.2,
            "min_points": 50,
            "views_per_scene": 4,
            "workers": 0,
        },
        "model": {
            "clip": str(write_clip(root / "clip")),
            "diffusion": str(write_diffusion(root / "diffusion")),
            "point_unet": UNET,
            "binary_unet": UNET,
            "pyramid_channels": 32,
            "pyramid_mid_channels": 32,
            "hidden": 32,
            "heads": 2,
            "pixel_layers": 1,
            "pixel_ffn": 16,
            "mask_layers": 3,
            "mask_ffn": 16,
            "queries": 4,
        },
        "loss": {"num_points": 32, "mask_regularisation_start": 1},
        "train": {
            "epochs": 2,
            "batch_size": 2,
            "log_every": 1,
            "save_minutes": None,
            "evaluate_every": 0,
            "picture_every": 0,
        },
        "evaluate": {"batch_size": 2, "workers": 0},
    }
    for key, value in changes.items():
        config[key] = {**config.get(key, {}), **value} if isinstance(value, dict) else value
    path = root / "tiny.yaml"
    path.write_text(yaml.safe_dump(config))
    return path


def write_model(root: Path) -> Path:
    """Random weights of the tiny model, with their configuration beside them."""
    path = write_config(root)
    torch.manual_seed(0)
    model = build_model(load_config(path)).model
    save_file({k: v.contiguous() for k, v in model.state_dict().items()}, root / "model.safetensors")
    path.rename(root / "model.yaml")
    return root / "model.safetensors"
