"""Embedding of the empty prompt by a diffusion model's text encoder, a constant that replaces the encoder."""

import re
from collections.abc import Mapping
from pathlib import Path
from typing import NamedTuple

import torch
from open_clip.model import QuickGELU
from open_clip.transformer import TextTransformer
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor, nn

from xmask3d.errors import UserError
from xmask3d.guarded import read_object, reading
from xmask3d.models.loading.tensor_files import TensorFile

EMPTY_PROMPT_FILE = "empty_prompt.safetensors"
# Stable Diffusion 1.x has a text encoder of transformers, 2.x one of open_clip.
TRANSFORMERS_PREFIX, OPEN_CLIP_PREFIX = "cond_stage_model.transformer.", "cond_stage_model.model."

_TRANSFORMERS_NAMES = (
    (r"^embeddings\.token_embedding\.", "token_embedding."),
    (r"^embeddings\.position_embedding\.weight$", "positional_embedding"),
    (r"^final_layer_norm\.", "ln_final."),
    (r"^encoder\.layers\.", "transformer.resblocks."),
    (r"\.layer_norm(\d)\.", r".ln_\1."),
    (r"\.mlp\.fc1\.", ".mlp.c_fc."),
    (r"\.mlp\.fc2\.", ".mlp.c_proj."),
    (r"\.self_attn\.out_proj\.", ".attn.out_proj."),
)


class _Style(NamedTuple):
    """Properties of a text encoder that do not follow from its tensors."""

    heads: int
    quick_gelu: bool
    pads_with_end: bool


def folder_empty_prompt(folder: Path) -> Tensor:
    """Read `empty_prompt.safetensors` in a diffusers folder, else use its `text_encoder/` and `tokenizer/`.

    Returns:
        1 x T x C, float32.

    Raises:
        UserError: both are missing, or one is unreadable.
    """
    path = folder / EMPTY_PROMPT_FILE
    if path.is_file():
        tensors = _read(path)
        if "empty_prompt" not in tensors or tensors["empty_prompt"].ndim != 3:
            raise UserError(f"{path}: expected a tensor empty_prompt of 1 x T x C")
        return tensors["empty_prompt"].float()
    encoder = folder / "text_encoder"
    files = (encoder / "model.safetensors", encoder / "model.fp16.safetensors")
    weights = next((file for file in files if file.is_file()), None)
    if weights is None:
        raise UserError(f"{folder}: needs {EMPTY_PROMPT_FILE}, or text_encoder/model.safetensors to compute it")
    with reading(encoder / "config.json", "the description of a text encoder"):
        config = read_object(encoder / "config.json")
        quick = config.get("hidden_act", "quick_gelu") == "quick_gelu"
        style = _Style(int(config["num_attention_heads"]), quick, _pads_with_end(folder / "tokenizer"))
    return _encode(_from_transformers(_read(weights), weights), style, weights)


def encode_empty_prompt(tensors: TensorFile, path: Path) -> Tensor:
    """Use the text encoder in a CompVis checkpoint, or read `empty_prompt.safetensors` beside it.

    Returns:
        1 x T x C, float32.

    Raises:
        UserError: the checkpoint has no text encoder, and there is no such file beside it.
    """
    first = {name: tensors.get(name) for name in tensors.names if name.startswith(TRANSFORMERS_PREFIX)}
    if first:
        converted = _from_transformers(_without_prefix(first, TRANSFORMERS_PREFIX), path)
        heads = _width(converted, path) // 64
        return _encode(converted, _Style(max(heads, 1), quick_gelu=True, pads_with_end=True), path)
    second = {name: tensors.get(name) for name in tensors.names if name.startswith(OPEN_CLIP_PREFIX)}
    if second:
        converted = _without_last_layer(_without_prefix(second, OPEN_CLIP_PREFIX))
        heads = _width(converted, path) // 64
        return _encode(converted, _Style(max(heads, 1), quick_gelu=False, pads_with_end=False), path)
    if (path.parent / EMPTY_PROMPT_FILE).is_file():
        return folder_empty_prompt(path.parent)
    raise UserError(f"{path}: no text encoder (cond_stage_model.*) inside and no {EMPTY_PROMPT_FILE} beside it")


@torch.no_grad()
def _encode(tensors: Mapping[str, Tensor], style: _Style, path: Path) -> Tensor:
    """Return the last hidden states, 1 x T x C, of the encoder whose tensors have open_clip's names."""
    with reading(path, "a CLIP text encoder"):  # raised if shapes and heads do not fit each other
        vocabulary, width = tensors["token_embedding.weight"].shape
        length = len(tensors["positional_embedding"])
        layers = len({name.split(".")[2] for name in tensors if name.startswith("transformer.resblocks.")})
        encoder = TextTransformer(
            context_length=length,
            vocab_size=vocabulary,
            width=width,
            heads=style.heads,
            layers=layers,
            mlp_ratio=tensors["transformer.resblocks.0.mlp.c_fc.weight"].shape[0] / width,
            output_dim=width,
            act_layer=QuickGELU if style.quick_gelu else nn.GELU,
            output_tokens=True,
        ).eval()
        needed = encoder.state_dict().keys() - {"text_projection"}
        missing = sorted(needed - tensors.keys())
        if missing:
            raise UserError(f"{path}: {missing[0]} (in open_clip's names) is missing from the text encoder")
        encoder.load_state_dict({name: tensors[name].float() for name in needed}, strict=False)
    # Start and end of text are the last two tokens of CLIP's vocabulary.
    start, end = vocabulary - 2, vocabulary - 1
    padding = end if style.pads_with_end else 0
    _, states = encoder(torch.tensor([[start, end] + [padding] * (length - 2)]))
    return states


def _from_transformers(tensors: Mapping[str, Tensor], path: Path) -> dict[str, Tensor]:
    """Rename tensors of transformers' `CLIPTextModel` to open_clip's; queries, keys and values become one tensor."""
    tensors = {name.removeprefix("text_model."): tensor for name, tensor in tensors.items()}
    converted = {}
    for name, tensor in tensors.items():
        if match := re.fullmatch(r"encoder\.layers\.(\d+)\.self_attn\.q_proj\.(weight|bias)", name):
            parts = [name.replace("q_proj", f"{part}_proj") for part in "qkv"]
            if not all(part in tensors for part in parts):
                raise UserError(f"{path}: incomplete text encoder, keys or values of layer {match[1]} are missing")
            projection = torch.cat([tensors[part] for part in parts])
            converted[f"transformer.resblocks.{match[1]}.attn.in_proj_{match[2]}"] = projection
            continue
        for pattern, replacement in _TRANSFORMERS_NAMES:
            name = re.sub(pattern, replacement, name)
        converted[name] = tensor
    _width(converted, path)
    return converted


def _without_last_layer(tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Drop the last layer, since Stable Diffusion 2.x uses the output of the layer before it."""
    layers = {int(name.split(".")[2]) for name in tensors if name.startswith("transformer.resblocks.")}
    last = f"transformer.resblocks.{max(layers, default=0)}."
    return {name: tensor for name, tensor in tensors.items() if not name.startswith(last)}


def _without_prefix(tensors: Mapping[str, Tensor], prefix: str) -> dict[str, Tensor]:
    return {name.removeprefix(prefix): tensor for name, tensor in tensors.items()}


def _width(tensors: Mapping[str, Tensor], path: Path) -> int:
    for name in ("token_embedding.weight", "positional_embedding", "transformer.resblocks.0.mlp.c_fc.weight"):
        if name not in tensors:
            raise UserError(f"{path}: not a CLIP text encoder: {name} (in open_clip's names) is missing")
    return tensors["token_embedding.weight"].shape[1]


def _pads_with_end(tokenizer: Path) -> bool:
    """Return True for Stable Diffusion 1.x, which pads with the end token; 2.x pads with token 0, "!"."""
    path = tokenizer / "special_tokens_map.json"
    if not path.is_file():
        path = tokenizer / "tokenizer_config.json"
    with reading(path, "the description of a tokenizer"):
        padding = read_object(path).get("pad_token", "<|endoftext|>")
    content = padding.get("content") if isinstance(padding, dict) else padding
    if content not in ("<|endoftext|>", "!"):
        raise UserError(f"{path}: unknown padding token {content!r}; expected <|endoftext|> or !")
    return content == "<|endoftext|>"


def _read(path: Path) -> dict[str, Tensor]:
    try:
        return load_file(path)
    except (OSError, SafetensorError) as error:
        raise UserError(f"{path}: not a readable safetensors file: {error}") from error
