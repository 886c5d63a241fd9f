"""Export of a trained model to a small folder for distribution: half-precision weights, configuration and card."""

import json
from dataclasses import dataclass
from pathlib import Path

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor

from xmask3d import __version__
from xmask3d.build import build_model
from xmask3d.checkpoints.checkpoint import (
    GATE_ENTRY,
    apply_weights,
    find_checkpoint,
    load_gate,
    load_weights,
    read_checkpoint,
)
from xmask3d.checkpoints.model_card import model_card
from xmask3d.checkpoints.validations import read_validations
from xmask3d.config import Config, load_config, save_config
from xmask3d.errors import UserError
from xmask3d.files import atomic_write, sha256_of
from xmask3d.resources import find_file
from xmask3d.seal import UNSEALED, read_sealed_json, sealed

WEIGHTS_FILE, CONFIG_FILE, CARD_FILE = "model.safetensors", "config.yaml", "README.md"
# largest change by half precision, as a share of a tensor's largest value; a tensor with more keeps its dtype
HALF_ERROR = 1e-3


@dataclass(frozen=True)
class Export:
    """Record of an export: file, its size in bytes, number of values, and the largest relative change by rounding."""

    path: Path
    size: int
    numbers: int
    change: float


def export_model(run: Path, out: Path, checkpoint: str = "best", trust_code: bool = False) -> Export:
    """Write `model.safetensors`, `config.yaml` and a model card of a run into a folder for use with `--model`.

    Weights become float16, except running statistics and values that float16 cannot represent. Paths of the machine
    that trained are removed from the configuration.

    Args:
        run: folder of the run, with `config.yaml` and `checkpoints/`.
        out: target folder, created if missing.
        checkpoint: "best" (or the newest if there is no best), "newest", or a file.
        trust_code: import networks that the run's configuration names by dotted path.

    Raises:
        UserError: there is no run, it names code without being trusted, the checkpoint is damaged, the frozen networks
            exist only on this machine, or the folder is not writable.
    """
    if not (run / "config.yaml").is_file():
        raise UserError(f"{run}: no config.yaml; name the folder of a run, such as runs/rooms-B15N4")
    config = load_config(run / "config.yaml", trusted=trust_code)
    source = _checkpoint(run, checkpoint)
    weights = load_weights(source)
    return write_model(weights, config, about_checkpoint(source, config), out)


def write_model(weights: dict[str, Tensor], config: Config, about: dict[str, str], out: Path) -> Export:
    """Write the folder of a model.

    Args:
        weights: state dict of the network of `config`.
        about: training facts, as `about_checkpoint` returns them.
        out: target folder, created if missing.

    Raises:
        UserError: the weights are of another network, the frozen networks exist only on this machine, or the folder is
            not writable.
    """
    shipped = portable(config)  # called before anything is written, since it may refuse
    rounded = {name: _rounded(name, tensor) for name, tensor in weights.items()}
    apply_weights(build_model(config).model, rounded, out)  # make sure that the result can be read back
    path = out / WEIGHTS_FILE
    atomic_write(path, sealed(lambda part: save_file(rounded, part, metadata=about | UNSEALED)))
    save_config(shipped, out / CONFIG_FILE)
    atomic_write(out / CARD_FILE, model_card(shipped, about, sum(tensor.numel() for tensor in weights.values())))
    change = max(_change(tensor.cpu(), rounded[name]) for name, tensor in weights.items())
    return Export(path, path.stat().st_size, sum(tensor.numel() for tensor in weights.values()), change)


def read_about(path: Path) -> dict[str, str]:
    """Read the training facts of an exported file: step, scores, benchmark; empty for any other file."""
    try:
        with safe_open(str(path), "pt") as file:
            about = dict(file.metadata() or {})
            about.pop("seal", None)
            return about
    except (SafetensorError, OSError):
        return {}


def portable(config: Config) -> Config:
    """Return the configuration without folders of the machine that trained.

    Raises:
        UserError: CLIP or the diffusion model is a local file, which other machines do not have.
    """
    model = config.model
    for key, value in (("clip", model.clip), ("diffusion", model.diffusion if not model.image_features else "")):
        if Path(value).is_absolute():
            raise UserError(f"model.{key} is {value}: a file of this machine; an exported model needs one all can get")
    portable = config.model_copy(deep=True)
    portable.data.root = _relative(config.data.root, "data")
    portable.data.captions = portable.data.cache = portable.train.start_from = None
    portable.output = _relative(config.output, "runs")
    return portable


def _relative(path: Path, below: str) -> Path:
    return Path(below) / path.name if path.is_absolute() else path


def _checkpoint(run: Path, name: str) -> Path:
    if name == "best" and not (run / "checkpoints" / "best.pt").is_file():
        name = "newest"
    return find_checkpoint(name, run) if name in ("best", "newest") else find_file(name)


def about_checkpoint(source: Path, config: Config) -> dict[str, str]:
    """Return the training facts of a checkpoint, for the metadata of an exported file: step, scores, benchmark."""
    if source.suffix == ".safetensors":
        return read_about(source)
    about = {"benchmark": config.benchmark, "version": __version__, "from_sha256": sha256_of(source)}
    if source.suffix == ".pt":
        step = read_checkpoint(source).step
        metrics = read_validations(source.parent).get(step, {})
        about |= {"step": str(step), "metrics": json.dumps(metrics, sort_keys=True)}
        about |= _evaluation(source.parent.parent / "evaluation", about["from_sha256"])
    if gate := load_gate(source):
        about[GATE_ENTRY] = " ".join(map(repr, gate))
    return about


def _evaluation(folder: Path, digest: str) -> dict[str, str]:
    """Return scores and extent of the newest evaluation of a checkpoint, given its digest; empty if there is none."""
    for path in sorted(folder.glob("*/results.json"), key=lambda path: (-path.stat().st_mtime, path)):
        try:
            found = read_sealed_json(path)
            if found["checkpoint_sha256"] == digest:
                fused = found["scores"]["fused"]
                scores = {name: fused[name] for name in ("hiou", "miou_base", "miou_novel") if name in fused}
                extent = {"scenes": len(found["scenes"]), "views": found["views"], "protocol": found["protocol"]}
                return {"evaluation": json.dumps(extent | {"scores": scores})}
        except (UserError, KeyError, TypeError):
            continue  # a damaged table is no reason to refuse an export
    return {}


def _rounded(name: str, tensor: Tensor) -> Tensor:
    tensor = tensor.detach().cpu().contiguous()
    if tensor.dtype != torch.float32 or "running_" in name:
        return tensor
    half = tensor.half()
    return half if _change(tensor, half) <= HALF_ERROR else tensor


def _change(tensor: Tensor, rounded: Tensor) -> float:
    """Return the largest change as a share of the largest value; infinite if a value is out of range."""
    if not tensor.is_floating_point() or not tensor.numel():
        return 0.0
    difference = (rounded.to(tensor.dtype) - tensor).abs().max()
    return float(difference / tensor.abs().max().clamp(min=1e-12))
