"""Digests by which stored results of scenes are known: they change with everything that a result depends on."""

import hashlib
import json
import os
from collections.abc import Iterator
from dataclasses import asdict
from pathlib import Path

from xmask3d import __version__
from xmask3d.config import Config
from xmask3d.data.scene import SceneReader
from xmask3d.files import sha256_of
from xmask3d.models.loading import clip_weights, diffusion_weights
from xmask3d.models.loading.empty_prompt import EMPTY_PROMPT_FILE
from xmask3d.resources import find_file
from xmask3d.splits import Benchmark
from xmask3d.weights import clip_folder, diffusion_folder

NETWORK_FILES = (*clip_weights.WEIGHT_FILES, *diffusion_weights.WEIGHT_FILES, "model.fp16.safetensors")
"""Weights in a folder of CLIP, or in a part of a diffusers folder; the first that is there is read."""


def digest_of_text(text: str) -> str:
    """Return the SHA-256 of a text."""
    return hashlib.sha256(text.encode()).hexdigest()


def digest_of_sources(reader: SceneReader, name: str) -> str:
    """Return a digest that changes when a scene or a frame is written again, without comparing times."""
    paths = [path for path in sorted(reader.sources(name)) if path.exists()]
    entries = [entry for path in paths if path.is_dir() for entry in os.scandir(path)]
    stats = [(str(path), path.stat()) for path in paths] + sorted((entry.path, entry.stat()) for entry in entries)
    return digest_of_text(
        "\n".join(f"{path} {stat.st_size} {stat.st_mtime_ns} {stat.st_ctime_ns}" for path, stat in stats)
    )


def settings_of(config: Config, benchmark: Benchmark) -> str:
    """Return everything besides the checkpoint and scenes that results depend on, as JSON with sorted keys."""
    split = asdict(benchmark) | {"base": benchmark.base, "novel": benchmark.novel}
    del split["groups"]  # more groups and headlines are only further means of the same counts
    apart = {"workers", "headlines", "confidence_temperature"}
    if config.model.condition != "text":
        apart.add("condition_text")
    if not config.evaluate.instances:
        apart.add("instances")
    values = {
        "version": __version__,
        "frozen_sha256": {name: sha256_of(file) for name, file in frozen_files(config)},
        "benchmark": split,
        "protocol": config.protocol,
        "data": config.data.model_dump(mode="json", exclude={"cache", "workers", "train_split", "views_per_scene"}),
        "model": config.model.model_dump(mode="json", exclude={"checkpointing"}),
        "evaluate": config.evaluate.model_dump(mode="json", exclude=apart),
        "sparse": config.sparse.model_dump(mode="json"),
        "precision": config.train.precision,
        "seed": config.seed if config.protocol == "reference" else None,
    }
    return json.dumps(values, sort_keys=True)


def frozen_files(config: Config) -> Iterator[tuple[str, Path]]:
    """Yield the files of CLIP, the diffusion model and captions, where they are used, by names free of their place.

    A CLIP that open_clip fetches by its name has none: the name is a setting.
    """
    model = config.model
    sources = {"clip": clip_folder() if model.clip == "shipped" else find_file(model.clip)}
    if not model.image_features:
        named = diffusion_weights.diffusion_path(model.diffusion, fetch=False)
        sources["diffusion"] = diffusion_folder() if model.diffusion == "shipped" else named
    for kind, source in sources.items():
        found = _files_of_folder(source) if source.is_dir() else [source, source.parent / EMPTY_PROMPT_FILE]
        folder = source if source.is_dir() else source.parent
        yield from ((f"{kind}/{path.relative_to(folder).as_posix()}", path) for path in found if path.is_file())
    weights = model.image_features_options.get("weights")
    if isinstance(weights, str) and find_file(weights).is_file():
        yield "image_features", find_file(weights)
    if model.condition == "text" and config.evaluate.condition_text == "captions" and config.data.captions:
        yield "captions", find_file(config.data.captions)


def _files_of_folder(folder: Path) -> Iterator[Path]:
    parts = ["", "vae", "unet"]
    if (folder / EMPTY_PROMPT_FILE).is_file():
        yield folder / EMPTY_PROMPT_FILE
    else:
        parts += ["text_encoder", "tokenizer"]
    for part in parts:
        yield from sorted((folder / part).glob("*.json"))
        yield from [folder / part / name for name in NETWORK_FILES if (folder / part / name).is_file()][:1]
