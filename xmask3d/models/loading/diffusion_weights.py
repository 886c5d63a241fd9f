"""Reading of Stable Diffusion 1.x and 2.x from a diffusers folder or a CompVis checkpoint, without network."""

import re
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Any

import torch
from diffusers import AutoencoderKL, UNet2DConditionModel
from diffusers.loaders.single_file_utils import convert_ldm_unet_checkpoint, convert_ldm_vae_checkpoint
from huggingface_hub import snapshot_download
from safetensors import SafetensorError, safe_open
from torch import Tensor

from xmask3d.errors import UserError, first_line
from xmask3d.guarded import read_object
from xmask3d.models.diffusion import DiffusionFeatures, truncate_unet, truncate_vae
from xmask3d.models.frozen import ForeignNetwork
from xmask3d.models.loading.empty_prompt import EMPTY_PROMPT_FILE, encode_empty_prompt, folder_empty_prompt
from xmask3d.models.loading.tensor_files import TensorFile, check_numbers, open_tensors
from xmask3d.resources import find_file, is_of_hub

WEIGHT_FILES = ("diffusion_pytorch_model.safetensors", "diffusion_pytorch_model.fp16.safetensors")
PARTS: tuple[tuple[type, str], ...] = ((AutoencoderKL, "vae"), (UNet2DConditionModel, "unet"))
UNET_PREFIX, VAE_PREFIX = "model.diffusion_model.", "first_stage_model."

# Names of the VAE's attention in older folders, which diffusers changes when it loads them.
_OLD_ATTENTION = re.compile(r"(?<=mid_block\.attentions\.0\.)(query|key|value|proj_attn)(?=\.)")
_ATTENTION = {"query": "to_q", "key": "to_k", "value": "to_v", "proj_attn": "to_out.0"}

VAE_CONFIG: dict[str, Any] = {
    "down_block_types": ["DownEncoderBlock2D"] * 4,
    "up_block_types": ["UpDecoderBlock2D"] * 4,
    "block_out_channels": [128, 256, 512, 512],
    "layers_per_block": 2,
    "latent_channels": 4,
    "scaling_factor": 0.18215,
}
UNET_CONFIG_1: dict[str, Any] = {
    "in_channels": 4,
    "out_channels": 4,
    "block_out_channels": [320, 640, 1280, 1280],
    "layers_per_block": 2,
    "cross_attention_dim": 768,
    # diffusers means the number of heads.
    "attention_head_dim": 8,
}
UNET_CONFIG_2: dict[str, Any] = {
    **UNET_CONFIG_1,
    "cross_attention_dim": 1024,
    "attention_head_dim": [5, 10, 20, 20],
    "use_linear_projection": True,
}
PROMPT_TOKENS = 77
POSITIONS = ("embeddings.position_embedding.weight", "cond_stage_model.model.positional_embedding")
EXPECTED = "Stable Diffusion 1.x or 2.x (of the Hugging Face hub: hf download NAME --local-dir FOLDER)"


def build_diffusion(
    vae_config: Mapping[str, Any] = VAE_CONFIG, unet_config: Mapping[str, Any] = UNET_CONFIG_1, **options: Any
) -> DiffusionFeatures:
    """Build features from networks with random weights.

    Args:
        vae_config, unet_config: see the `config.json` of diffusers' `AutoencoderKL` and `UNet2DConditionModel`.
        options: keyword arguments of `DiffusionFeatures`.
    """
    vae: ForeignNetwork = AutoencoderKL.from_config(dict(vae_config))
    unet: ForeignNetwork = UNet2DConditionModel.from_config(dict(unet_config))
    return DiffusionFeatures(vae, unet, scaling_factor=vae.config.scaling_factor, **options)


def diffusion_path(source: str, fetch: bool = True) -> Path:
    """Return the path of a diffusion model: a folder or file, or one of the Hugging Face hub, kept in its cache.

    Args:
        source: a path, or "org/name" where no folder "org" is here.
        fetch: whether to ask the hub for what the cache lacks; else the path of what is missing is returned.

    Raises:
        UserError: the hub does not give it.
    """
    path = find_file(source)
    if path.exists() or not is_of_hub(source):
        return path
    files = [f"{part}/{name}" for _, part in PARTS for name in ("config.json", WEIGHT_FILES[0])]
    files += ["text_encoder/config.json", "text_encoder/model.safetensors", "tokenizer/*.json"]
    try:
        return Path(snapshot_download(source, allow_patterns=files, local_files_only=not fetch))
    except Exception as error:  # a connection, a permission, a name: the hub has an error for each
        if not fetch:
            return path
        raise UserError(
            f"model.diffusion {source}: no such file or folder, and the Hugging Face hub does not give it "
            f"({first_line(error)})"
        ) from error


def load_diffusion(source: Path | str, **options: Any) -> tuple[DiffusionFeatures, Tensor]:
    """Load the tensors of Stable Diffusion 1.x or 2.x that the features need, as float32 on the CPU.

    Args:
        source: a folder in diffusers' layout (`vae/` and `unet/`, each with `config.json` and safetensors; and
            `empty_prompt.safetensors` or `text_encoder/`), or a CompVis checkpoint (`.ckpt` or `.safetensors`).
        options: keyword arguments of `DiffusionFeatures`.

    Returns:
        The features, and the embedding of the empty prompt, 1 x T x C.

    Raises:
        UserError: a file or tensor is missing or does not fit; the message names it.
    """
    path = Path(source)
    if path.is_dir():
        vae = _folder_network(AutoencoderKL, path / "vae")
        unet = _folder_network(UNet2DConditionModel, path / "unet")
        prompt = folder_empty_prompt(path)
    elif path.is_file():
        with open_tensors(path) as tensors:
            vae, unet = _compvis_networks(tensors, path)
            prompt = encode_empty_prompt(tensors, path)
    else:
        raise UserError(f"{path}: no such file or folder; expected {EXPECTED}")
    if prompt.shape[-1] != unet.config.cross_attention_dim:
        sizes = f"{prompt.shape[-1]} channels, but the UNet expects {unet.config.cross_attention_dim}"
        raise UserError(f"{path}: the embedding of the empty prompt has {sizes}")
    return DiffusionFeatures(vae, unet, scaling_factor=vae.config.scaling_factor, **options), prompt


def diffusion_shapes(source: Path | str) -> tuple[DiffusionFeatures, Tensor]:
    """Build what `load_diffusion` returns, in its sizes alone; a file that is missing counts as version 1.x."""
    path = Path(source)
    tokens = PROMPT_TOKENS
    configs: tuple[Mapping[str, Any], ...] = VAE_CONFIG, UNET_CONFIG_1
    if path.is_dir():
        configs = read_object(path / "vae" / "config.json"), read_object(path / "unet" / "config.json")
        if (path / EMPTY_PROMPT_FILE).is_file():
            tokens = folder_empty_prompt(path).shape[1]
        elif (path / "text_encoder" / "config.json").is_file():
            tokens = read_object(path / "text_encoder" / "config.json").get("max_position_embeddings", tokens)
    elif path.is_file():
        with open_tensors(path) as tensors:
            unet, vae = _select(tensors, UNET_PREFIX, path), _select(tensors, VAE_PREFIX, path)
            configs = _compvis_configs(unet, vae, path)[::-1]
            positions = (name for name in tensors.names if name.endswith(POSITIONS))
            tokens = next((len(tensors.get(name)) for name in positions), tokens)
    vae, unet = (_without_weights(kind, config, path) for (kind, _), config in zip(PARTS, configs, strict=True))
    return DiffusionFeatures(vae, unet), torch.zeros(1, tokens, unet.config.cross_attention_dim)


def check_diffusion(source: Path | str) -> str:
    """Compare names and shapes of the networks at `source` with what the features need, without reading the numbers.

    Returns:
        One line about the networks found.

    Raises:
        UserError: see `load_diffusion`, except for the embedding of the empty prompt.
    """
    path = Path(source)
    if path.is_dir():
        networks = [_described(*_folder_headers(kind, path / part)) for kind, part in PARTS]
        return f"diffusers folder, {' and '.join(networks)}"
    if not path.is_file():
        raise UserError(f"{path}: no such file or folder; expected {EXPECTED}")
    with open_tensors(path) as tensors:
        unet, vae = _select(tensors, UNET_PREFIX, path), _select(tensors, VAE_PREFIX, path)
        unet_config, vae_config = _compvis_configs(unet, vae, path)
        pairs = (
            (AutoencoderKL, vae_config, convert_ldm_vae_checkpoint, vae),
            (UNet2DConditionModel, unet_config, convert_ldm_unet_checkpoint, unet),
        )
        networks = []
        for kind, config, rename, found in pairs:
            network = _without_weights(kind, config, path)
            shapes = {name: tensor.to("meta") for name, tensor in found.items()}
            networks.append(_described(network, _renamed(rename, shapes, network, path), path))
    return f"CompVis checkpoint, {' and '.join(networks)}"


def _described(network: ForeignNetwork, tensors: Mapping[str, Tensor], path: Path) -> str:
    _check_fit(network, tensors, path)
    return f"{type(network).__name__} of {len(network.state_dict())} tensors"


def _folder_headers(kind: type, folder: Path) -> tuple[ForeignNetwork, dict[str, Tensor], Path]:
    """Return a network without weights, and the shapes of the tensors in its file."""
    network, path = _folder_description(kind, folder)
    try:
        with safe_open(path, framework="pt") as file:
            shapes = {name: file.get_slice(stored).get_shape() for name, stored in _stored_names(file).items()}
    except (OSError, SafetensorError) as error:
        raise UserError(f"{path}: not a readable weight file: {error}") from error
    return network, {name: torch.empty(shape, device="meta") for name, shape in shapes.items()}, path


def _truncated(network: ForeignNetwork) -> ForeignNetwork:
    if isinstance(network, AutoencoderKL):
        truncate_vae(network)
    else:
        truncate_unet(network)
    return network


def _without_weights(kind: Any, config: Mapping[str, Any], where: Path) -> ForeignNetwork:
    try:
        with torch.device("meta"):
            return _truncated(kind.from_config(dict(config)))
    except (TypeError, ValueError, KeyError) as error:
        raise UserError(f"{where}: diffusers cannot build this {kind.__name__}: {str(error)[:200]}") from error


def _folder_description(kind: type, folder: Path) -> tuple[ForeignNetwork, Path]:
    """Return the network of a folder's configuration without weights, and the file with its weights."""
    config = read_object(folder / "config.json")
    network = _without_weights(kind, config, folder / "config.json")
    path = next((folder / name for name in WEIGHT_FILES if (folder / name).is_file()), None)
    if path is None:
        raise UserError(f"{folder}: no weights; expected {' or '.join(WEIGHT_FILES)}")
    return network, path


def _folder_network(kind: type, folder: Path) -> ForeignNetwork:
    network, path = _folder_description(kind, folder)
    try:
        with safe_open(path, framework="pt") as file:
            stored = _stored_names(file)
            tensors = {name: file.get_tensor(stored[name]) for name in network.state_dict() if name in stored}
    except (OSError, SafetensorError) as error:
        raise UserError(f"{path}: not a readable weight file: {error}") from error
    return _load(network, tensors, path)


def _stored_names(file: safe_open) -> dict[str, str]:
    """Return the names in a folder's weight file, by the tensors' names in diffusers' networks."""
    return {_OLD_ATTENTION.sub(lambda old: _ATTENTION[old[0]], name): name for name in file.keys()}  # noqa: SIM118


def _compvis_networks(tensors: TensorFile, path: Path) -> tuple[ForeignNetwork, ForeignNetwork]:
    unet_tensors = _select(tensors, UNET_PREFIX, path)
    vae_tensors = _select(tensors, VAE_PREFIX, path)
    unet_config, vae_config = _compvis_configs(unet_tensors, vae_tensors, path)
    vae = _without_weights(AutoencoderKL, vae_config, path)
    unet = _without_weights(UNet2DConditionModel, unet_config, path)
    vae_tensors = _renamed(convert_ldm_vae_checkpoint, vae_tensors, vae, path)
    unet_tensors = _renamed(convert_ldm_unet_checkpoint, unet_tensors, unet, path)
    return _load(vae, vae_tensors, path), _load(unet, unet_tensors, path)


def _renamed(rename: Callable, tensors: dict[str, Tensor], network: ForeignNetwork, path: Path) -> dict[str, Tensor]:
    """Return the tensors of a CompVis checkpoint under the names of `network`."""
    try:
        renamed = rename(tensors, network.config)
        # diffusers returns None for some missing tensors.
        return {name: tensor for name, tensor in renamed.items() if tensor is not None}
    except KeyError as error:
        raise UserError(f"{path}: incomplete checkpoint, {error} is missing") from error


def _compvis_configs(
    unet: Mapping[str, Tensor], vae: Mapping[str, Tensor], path: Path
) -> tuple[dict[str, Any], dict[str, Any]]:
    """Return the networks' configurations: those of version 1.x or 2.x, with the widths of the tensors."""
    try:
        width = unet[UNET_PREFIX + "input_blocks.0.0.weight"].shape[0]
        attention = UNET_PREFIX + "input_blocks.1.1."
        context = unet[attention + "transformer_blocks.0.attn2.to_k.weight"].shape[1]
        second = unet[attention + "proj_in.weight"].ndim == 2
        vae_width = vae[VAE_PREFIX + "encoder.conv_in.weight"].shape[0]
    except KeyError as error:
        raise UserError(f"{path}: not Stable Diffusion 1.x or 2.x: {error} is missing") from error
    channels = [width * factor for factor in (1, 2, 4, 4)]
    unet_config = {**(UNET_CONFIG_2 if second else UNET_CONFIG_1)}
    unet_config |= {"block_out_channels": channels, "cross_attention_dim": context}
    if second:
        unet_config["attention_head_dim"] = [max(size // 64, 1) for size in channels]
    return unet_config, {**VAE_CONFIG, "block_out_channels": [vae_width * factor for factor in (1, 2, 4, 4)]}


def _select(tensors: TensorFile, prefix: str, path: Path) -> dict[str, Tensor]:
    selected = {name: tensors.get(name) for name in tensors.names if name.startswith(prefix)}
    if not selected:
        raise UserError(f"{path}: no tensors {prefix}*; expected a Stable Diffusion checkpoint in CompVis' layout")
    return selected


def _check_fit(network: ForeignNetwork, tensors: Mapping[str, Tensor], path: Path) -> None:
    """Raise `UserError` unless all tensors of a network exist with the right shapes."""
    expected = network.state_dict()
    missing = sorted(expected.keys() - tensors.keys())
    if missing:
        raise UserError(f"{path}: tensors of {type(network).__name__} are missing: {_listed(missing)}")
    wrong = sorted(name for name, tensor in expected.items() if tensors[name].shape != tensor.shape)
    if wrong:
        raise UserError(f"{path}: {type(network).__name__} has other shapes in {_listed(wrong)}")


def _load(network: ForeignNetwork, tensors: Mapping[str, Tensor], path: Path) -> ForeignNetwork:
    """Load tensors into a network without weights; other tensors are ignored."""
    _check_fit(network, tensors, path)
    expected = network.state_dict()
    check_numbers(tensors, expected, path)
    # Copied, since tensors of a mapped file have unaligned addresses, which affect the last bits of matrix products.
    copies = {name: tensors[name].to(torch.float32, copy=True) for name in expected}
    network.load_state_dict(copies, assign=True)
    return network


def _listed(names: Iterable[str]) -> str:
    first, *others = names
    return f"{first} and {len(others)} more" if others else first
