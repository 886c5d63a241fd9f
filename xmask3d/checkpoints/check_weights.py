"""Inventory of a configuration's weights: those present, and where to get and put the others. Reads only headers."""

from __future__ import annotations

import os
import zipfile
from dataclasses import dataclass
from pathlib import Path

import open_clip
import torch
from huggingface_hub import try_to_load_from_cache

from xmask3d.build_untrained import has_own_sizes, network_of
from xmask3d.checkpoints.checkpoint import FORMAT, read_payload
from xmask3d.checkpoints.export import read_about
from xmask3d.checkpoints.published import Layout, read_native, read_published
from xmask3d.config import Config
from xmask3d.errors import UserError
from xmask3d.guarded import read_object, reading
from xmask3d.models.loading.clip_weights import CONFIG_FILE, build_clip
from xmask3d.models.loading.clip_weights import WEIGHT_FILES as CLIP_FILES
from xmask3d.models.loading.diffusion_weights import check_diffusion, diffusion_path
from xmask3d.models.loading.empty_prompt import EMPTY_PROMPT_FILE, OPEN_CLIP_PREFIX, TRANSFORMERS_PREFIX
from xmask3d.models.loading.tensor_files import open_tensors
from xmask3d.resources import find_file
from xmask3d.splits import load_benchmark
from xmask3d.weights import clip_folder, diffusion_folder

PUBLISHED_CHECKPOINTS = (
    *("scannet20/B15N4", "scannet20/B12N7", "scannet20/B10N9"),
    *("scannet200/B170N30", "scannet200/B150N50"),
)
# Suffixes of a checkpoint under pretrained/, converted or as downloaded.
CHECKPOINT_SUFFIXES = (".safetensors", ".pth.tar")


@dataclass(frozen=True)
class Finding:
    """State of one weight file or folder.

    Attributes:
        what: purpose of the weights. there: true if they can be used. detail: description, or what is wrong.
        get: source of missing weights. put: place for them.
    """

    what: str
    there: bool
    detail: str
    get: str = ""
    put: str = ""

    def lines(self) -> list[str]:
        """Format the finding for people."""
        if self.there:
            return [f"there    {self.what}: {self.detail}"]
        return [f"MISSING  {self.what}: {self.detail}", f"         get it: {self.get}", f"         put it: {self.put}"]


def check_weights(config: Config, checkpoint: Path | None = None) -> list[Finding]:
    """Search for CLIP, Stable Diffusion, the embedding of the empty prompt, and a checkpoint.

    Args:
        checkpoint: checkpoint to check; by default the published one, if there is one for the benchmark on its own
            data.
    """
    findings = [_clip(config.model.clip)]
    if not config.model.image_features:
        findings += [_diffusion(config.model.diffusion), _empty_prompt(config.model.diffusion)]
    if checkpoint or _is_published(config):
        findings.append(_checkpoint(config, checkpoint))
    return findings


def _is_published(config: Config) -> bool:
    return config.benchmark in PUBLISHED_CHECKPOINTS and not has_own_sizes(config)


def _clip(source: str) -> Finding:
    what, put = "CLIP", "anywhere; then model.clip=FILE"
    path = clip_folder() if source == "shipped" else find_file(source)
    if path.exists():
        get = "a file of OpenAI's such as ViT-L-14.pt, or a folder with open_clip_config.json and model.safetensors"
        try:
            return Finding(what, True, f"{path}, {_clip_folder(path) if path.is_dir() else _clip_file(path)}")
        except UserError as error:
            return Finding(what, False, str(error), get, put)
    name, _, tag = source.partition("/")
    tag = tag or "openai"
    known = open_clip.get_pretrained_cfg(name, tag)
    if not known:
        return Finding(what, False, f"{source}: neither a file nor a model of open_clip's", "open_clip's list", put)
    url, hub = known.get("url", ""), known.get("hf_hub", "").rstrip("/")
    cached = _cached(url, hub)
    if cached:
        try:
            return Finding(what, True, f"{cached}, {_clip_file(cached, named=True)}")
        except UserError as error:
            return Finding(what, False, str(error), f"remove it, it is fetched again; or {url}", put)
    places = " or ".join(place for place in (url, hub and f"https://huggingface.co/{hub}") if place)
    return Finding(what, False, f"{source} is not in a cache", f"by itself at the first start, from {places}", put)


def _cached(url: str, hub: str) -> Path | None:
    """Return the path at which open_clip would find a model without network."""
    for file in CLIP_FILES[1:] if hub else ():
        found = try_to_load_from_cache(hub, file)
        if isinstance(found, str):
            return Path(found)
    local = Path(os.path.expanduser("~/.cache/clip")) / Path(url).name
    return local if url and local.is_file() else None


def _clip_folder(path: Path) -> str:
    try:
        config = read_object(path / CONFIG_FILE)["model_cfg"]
        with torch.device("meta"):
            model = build_clip(config)
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise UserError(f"{path / CONFIG_FILE}: not a description of a CLIP model ({error})") from error
    file = next((path / name for name in CLIP_FILES if (path / name).is_file()), None)
    if file is None:
        raise UserError(f"{path}: no CLIP weights; expected {' or '.join(CLIP_FILES)}")
    with open_tensors(file) as tensors:
        # The stem of the shipped CLIP comes from a package.
        wanted = [name for name in model.state_dict() if not name.startswith("visual.conv1.") or name in tensors.names]
        missing = [name for name in wanted if name not in tensors.names]
    if missing:
        raise UserError(f"{file}: {missing[0]} and {len(missing) - 1} more tensors are missing")
    return f"{len(wanted)} tensors, width {config['embed_dim']}"


def _clip_file(path: Path, named: bool = False) -> str:
    """Describe a file of CLIP weights; only one that open_clip has a name for may be of SigLIP or EVA."""
    if zipfile.is_zipfile(path):
        with reading(path, "an archive of weights"), zipfile.ZipFile(path) as archive:
            names = archive.namelist()
        if any(name.endswith("/constants.pkl") for name in names):
            # OpenAI's own archive: its directory is at the end, so the file is complete.
            return f"OpenAI's archive, {sum('/data/' in name or '/constants/' in name for name in names)} tensors"
    with open_tensors(path) as tensors:
        if named and any(name.startswith("visual.trunk.") for name in tensors.names):
            return f"{len(tensors.names)} tensors"
        if "visual.proj" not in tensors.names or "text_projection" not in tensors.names:
            raise UserError(f"{path}: no CLIP vision transformer (no visual.proj or text_projection)")
        return f"{len(tensors.names)} tensors, width {tensors.get('text_projection').shape[1]}"


def _diffusion(source: str) -> Finding:
    path = diffusion_folder() if source == "shipped" else diffusion_path(source, fetch=False)
    get = (
        "sh scripts/download_datasets.sh sd_model; or sd-v1-3.ckpt of CompVis/stable-diffusion-v-1-3-original on "
        "Hugging Face; or any Stable Diffusion 1.x or 2.x in diffusers' layout"
    )
    try:
        return Finding("Stable Diffusion", True, f"{path}, {check_diffusion(path)}")
    except UserError as error:
        return Finding("Stable Diffusion", False, str(error), get, f"{path}, or anywhere; then model.diffusion=PATH")


def _empty_prompt(source: str) -> Finding:
    what = "embedding of the empty prompt"
    path = diffusion_folder() if source == "shipped" else diffusion_path(source, fetch=False)
    beside = (path if path.is_dir() else path.parent) / EMPTY_PROMPT_FILE
    if path.is_file():
        try:
            with open_tensors(path) as tensors:
                if any(name.startswith((TRANSFORMERS_PREFIX, OPEN_CLIP_PREFIX)) for name in tensors.names):
                    return Finding(what, True, f"computed from the text encoder in {path}")
        except UserError:
            pass  # reported with the networks
    get = "nothing more with a CompVis checkpoint or a complete diffusers folder: its text encoder gives it"
    if beside.is_file():
        try:
            with open_tensors(beside) as tensors:
                if "empty_prompt" in tensors.names and tensors.get("empty_prompt").ndim == 3:
                    shape = " x ".join(map(str, tensors.get("empty_prompt").shape))
                    return Finding(what, True, f"{beside}, {shape}")
        except UserError as error:
            return Finding(what, False, str(error), get, str(beside))
    encoders = (path / "text_encoder" / name for name in ("model.safetensors", "model.fp16.safetensors"))
    encoder = next((file for file in encoders if file.is_file()), None)
    if encoder is not None:
        return Finding(what, True, f"computed from {encoder}")
    return Finding(what, False, "no text encoder with the diffusion model, and no file", get, str(beside))


def _checkpoint(config: Config, given: Path | None) -> Finding:
    split = load_benchmark(config.benchmark).name.rpartition("/")[2].lower()
    candidates = [find_file(Path("pretrained") / (split + suffix)) for suffix in CHECKPOINT_SUFFIXES]
    path = given or next((file for file in candidates if file.is_file()), candidates[-1])
    if _is_published(config):
        get = f"sh scripts/download_checkpoints.sh {split}; needed to evaluate, not to train"
    else:
        get = "train it with sh scripts/train.sh and this configuration; none was published for it"
    try:
        return Finding("checkpoint", True, f"{path}, {_checkpoint_content(config, path)}")
    except UserError as error:
        return Finding("checkpoint", False, str(error), get, str(candidates[-1]))


def _checkpoint_content(config: Config, path: Path) -> str:
    if not path.is_file():
        raise UserError(f"{path}: no such checkpoint")
    about = read_about(path) if path.suffix == ".safetensors" else {}
    if "from_sha256" in about:  # an exported file, which names the benchmark of its training
        _check_benchmark(path, about.get("benchmark"), config)
        return f"exported model, step {about.get('step', 'unknown')}"
    if path.suffix == ".safetensors":
        checkpoint = read_native(path, Layout.of(network_of(config)))
    elif (payload := read_payload(path)).get("format") == FORMAT:
        _check_benchmark(path, (payload.get("config") or {}).get("benchmark"), config)
        return f"checkpoint of a run, step {payload.get('step')}"
    else:
        checkpoint = read_published(path, Layout.of(network_of(config)))
    classes = len(checkpoint.tensors["criterion.empty_weight"]) - 1
    if classes != load_benchmark(config.benchmark).num_base:
        raise UserError(f"{path}: trained on {classes} base classes, not on those of {config.benchmark}")
    return (
        f"{len(checkpoint.tensors)} tensors, epoch {checkpoint.values.get('epoch', 'unknown')}, {classes} base classes"
    )


def _check_benchmark(path: Path, trained: str | None, config: Config) -> None:
    if trained != config.benchmark:
        raise UserError(f"{path}: trained on {trained}, not on {config.benchmark}")
