"""Sources of CLIP: open_clip's names, local files, or a folder with a small one."""

import logging
import zipfile
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import open_clip
import torch
from open_clip.model import build_model_from_openai_state_dict
from open_clip.tokenizer import HFTokenizer
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor, nn

from xmask3d.errors import UserError, first_line
from xmask3d.guarded import read_object
from xmask3d.models.clip_stem import ConvStem, add_stem, imagenet_weights, take_stem
from xmask3d.models.frozen import ForeignNetwork
from xmask3d.models.loading.script_archive import load_script_archive
from xmask3d.models.loading.tensor_files import check_numbers, refuse_foreign
from xmask3d.models.tokenizer import VOCABULARY_FILE, CompactTokenizer

log = logging.getLogger(__name__)

Tokenizer = Callable[[Sequence[str]], Tensor]

CONFIG_FILE = "open_clip_config.json"
CLEANING = ("clean", "strip_sep_token")
# In the order in which they are tried.
WEIGHT_FILES = ("model.safetensors", "open_clip_model.safetensors", "open_clip_pytorch_model.bin")


class LoadedClip(NamedTuple):
    """Frozen CLIP model in evaluation mode, float32 on the CPU, and its tokenizer."""

    model: nn.Module
    tokenizer: Tokenizer


def load_clip(source: str | Path, pretrained: str | Path = "openai") -> LoadedClip:
    """Load a CLIP model.

    Args:
        source: one of
            - a folder with `open_clip_config.json` and its weights (`model.safetensors` or as open_clip names them); a
              file `tokenizer_vocabulary.json` in it makes the tokenizer a `CompactTokenizer`;
            - a file of OpenAI's, such as `ViT-L-14.pt`, whose sizes are read off its tensors; so are those of other
              files with its names, which get OpenAI's activation, QuickGELU, and a warning, since they do not state
              theirs;
            - a model's name in open_clip, such as `ViT-L-14`.
        pretrained: only with a model's name: a tag that open_clip downloads, or a local `.pt` or `.safetensors` file,
            which gets the activation of the name (`ViT-L-14` or `ViT-L-14-quickgelu`) unless it is OpenAI's own.

    Raises:
        UserError: a file or tensor is missing or does not fit; the message names it.
    """
    path = Path(source)
    if path.is_dir():
        model, tokenizer = _from_folder(path)
    elif path.is_file():
        model, tokenizer = _from_openai_file(path)
    else:
        model, tokenizer = _from_name(str(source), str(pretrained))
    return LoadedClip(model.float().requires_grad_(False).eval(), tokenizer)


def named_config(name: str) -> dict[str, Any] | None:
    """Return open_clip's configuration of a model that it knows by name, else None; without network."""
    # which would fetch the configuration of an "hf-hub:..."
    return None if ":" in name else open_clip.get_model_config(name)


def build_clip(model_config: dict[str, Any]) -> ForeignNetwork:
    """Build CLIP with random weights; `model_config` is the `model_cfg` of an `open_clip_config.json`.

    Beyond open_clip's keys its `vision_cfg` may name a `stem`, see `clip_stem`.
    """
    vision_config, has_stem = take_stem(model_config["vision_cfg"])
    config = {**model_config, "vision_cfg": vision_config}
    kind = open_clip.CustomTextCLIP if config.pop("custom_text", False) else open_clip.CLIP
    clip: ForeignNetwork = kind(**config)
    if has_stem:
        add_stem(clip.visual)
    return clip


def _from_folder(folder: Path) -> tuple[nn.Module, Tokenizer]:
    config = _read_config(folder / CONFIG_FILE)
    model_config = config["model_cfg"]
    try:
        model = build_clip(model_config)
    except (TypeError, KeyError, ValueError) as error:
        raise UserError(f"{folder / CONFIG_FILE}: open_clip cannot build this model: {error}") from error
    weights = next((folder / name for name in WEIGHT_FILES if (folder / name).is_file()), None)
    if weights is None:
        raise UserError(f"{folder}: no CLIP weights; expected {' or '.join(WEIGHT_FILES)}")
    tensors = _read_tensors(weights)
    if isinstance(getattr(model.visual, "conv1", None), ConvStem):
        tensors |= {f"visual.conv1.{name}": x for name, x in imagenet_weights(model.visual.conv1).items()}
    _load(model, tensors, weights)
    preprocess = config.get("preprocess_cfg", {})
    model.visual.image_mean, model.visual.image_std = preprocess.get("mean"), preprocess.get("std")
    return model, _folder_tokenizer(folder, model_config["text_cfg"])


def _folder_tokenizer(folder: Path, text_config: dict[str, Any]) -> Tokenizer:
    context_length = text_config.get("context_length", 77)
    if name := text_config.get("hf_tokenizer_name"):
        own = (folder / "tokenizer.json").is_file()
        # Only how a text is cleaned: other options reach transformers, and one of them would run foreign code.
        options = {key: x for key, x in text_config.get("tokenizer_kwargs", {}).items() if key in CLEANING}
        return _foreign_tokenizer(
            lambda: HFTokenizer(str(folder) if own else name, context_length=context_length, **options), name
        )
    if not (folder / VOCABULARY_FILE).is_file():
        return open_clip.SimpleTokenizer(context_length=context_length)
    return CompactTokenizer.load(
        folder / VOCABULARY_FILE, vocabulary_size=text_config["vocab_size"], context_length=context_length
    )


def _foreign_tokenizer(make: Callable[[], Tokenizer], name: str) -> Tokenizer:
    """Make a tokenizer that transformers may have to read, and fetch.

    Raises:
        UserError: transformers is not installed, or the tokenizer cannot be had.
    """
    try:
        return make()
    except ImportError as error:
        raise UserError(f"CLIP {name}: its tokenizer needs transformers: pip install transformers") from error
    except (OSError, ValueError) as error:
        raise UserError(f"CLIP {name}: cannot fetch its tokenizer ({first_line(error)})") from error


def _from_openai_file(path: Path) -> tuple[nn.Module, Tokenizer]:
    tensors = _read_tensors(path)
    if "visual.proj" not in tensors or "text_projection" not in tensors:
        raise UserError(f"{path}: no CLIP vision transformer in OpenAI's layout (no visual.proj or text_projection)")
    context_length = len(tensors["positional_embedding"])
    if not _is_openais(path, tensors):
        log.warning(
            "%s: does not state its activation: using QuickGELU, which OpenAI's weights need; if they are others', "
            "such as LAION's or DataComp's, give a folder of them and their %s instead",
            path,
            CONFIG_FILE,
        )
    check_numbers(tensors, {name: x for name, x in tensors.items() if x.is_floating_point()}, path)
    try:
        # None instead of a half-precision dtype: plain layer norms, which also run in float64.
        model = build_model_from_openai_state_dict(dict(tensors), cast_dtype=None)
    except (KeyError, RuntimeError) as error:
        raise UserError(f"{path}: not in OpenAI's layout: {first_line(error)}") from error
    return model, open_clip.SimpleTokenizer(context_length=context_length)


def _from_name(name: str, pretrained: str) -> tuple[nn.Module, Tokenizer]:
    if named_config(name) is None:
        raise UserError(f"CLIP {name!r}: no such folder or file, and open_clip knows no model of this name")
    tag = open_clip.get_pretrained_cfg(name, pretrained)
    if not tag and not Path(pretrained).is_file():
        known = ", ".join(open_clip.list_pretrained_tags_by_model(name)) or "none"
        raise UserError(f"CLIP {name}: {pretrained!r} is no file and none of its pretrained tags ({known})")
    tokenizer = _foreign_tokenizer(lambda: open_clip.get_tokenizer(name), name)
    if not tag:
        file = Path(pretrained)
        tensors = _read_tensors(file)
        model = open_clip.create_model(name, pretrained=None, force_quick_gelu=_is_openais(file, tensors))
        _load(model, tensors, file)
        return model, tokenizer
    try:
        # The activation belongs to the weights, not to the architecture's name.
        quick = bool(tag.get("quick_gelu"))
        return open_clip.create_model(name, pretrained=pretrained, force_quick_gelu=quick), tokenizer
    except Exception as error:
        reason = first_line(error)
        raise UserError(
            f"CLIP {name}: cannot download {pretrained!r} ({reason}); give the path of a local file instead"
        ) from error


def _read_config(path: Path) -> dict[str, Any]:
    config = read_object(path, "the description of a CLIP model")
    described = config.get("model_cfg")
    if not isinstance(described, dict) or "text_cfg" not in described:
        raise UserError(f"{path}: no model_cfg with a text_cfg in it")
    return config


def _read_tensors(path: Path) -> dict[str, Tensor]:
    """Read the tensors of a safetensors file, of a state dict, or of OpenAI's TorchScript archive."""
    refuse_foreign(path)
    try:
        if path.suffix == ".safetensors":
            return load_file(path)
        tensors = load_script_archive(path) if _is_torchscript(path) else torch.load(path, "cpu", weights_only=True)
    except (OSError, RuntimeError, SafetensorError, EOFError, ValueError) as error:
        raise UserError(f"{path}: not a readable weight file: {first_line(error)}") from error
    except Exception as error:
        # The unpickler raises all kinds of errors on damaged and foreign files.
        raise UserError(f"{path}: refused, since it is not a plain file of tensors: {first_line(error)}") from error
    tensors = tensors.get("state_dict", tensors) if isinstance(tensors, dict) else None
    if not isinstance(tensors, dict):
        raise UserError(f"{path}: not a state dict; expected names and tensors")
    named = {name: value for name, value in tensors.items() if isinstance(name, str) and isinstance(value, Tensor)}
    return {name.removeprefix("module."): tensor for name, tensor in named.items()}


def _is_openais(path: Path, tensors: dict[str, Tensor]) -> bool:
    """Return True if weights are certainly OpenAI's, which use QuickGELU: their archive, or its complete content."""
    return _is_torchscript(path) or "input_resolution" in tensors


def _is_torchscript(path: Path) -> bool:
    if not zipfile.is_zipfile(path):
        return False
    with zipfile.ZipFile(path) as archive:
        return any(name.endswith("/constants.pkl") for name in archive.namelist())


def _load(model: nn.Module, tensors: dict[str, Tensor], path: Path) -> None:
    # Sizes stored in OpenAI's files.
    for name in ("input_resolution", "context_length", "vocab_size"):
        tensors.pop(name, None)
    check_numbers(tensors, model.state_dict(), path)
    try:
        model.load_state_dict(tensors)
    except RuntimeError as error:
        reason = " ".join(str(error).split())[:200]
        raise UserError(f"{path}: weights of another model: {reason}") from error
