"""Published models by name: fetches checkpoint, CLIP and Stable Diffusion once, and converts the checkpoint."""

import sys
from pathlib import Path

from xmask3d.checkpoints.convert import convert
from xmask3d.config import load_config, save_config
from xmask3d.data.download.fetch import make_folder, need_space
from xmask3d.data.download.items import ITEMS, download
from xmask3d.files import locked
from xmask3d.resources import CACHE, IS_CHECKOUT, REPOSITORY

RATE = 10e6
"""Assumed bytes per second for the estimate of the time."""


def fetch_published(name: str, folder: Path | None = None) -> Path:
    """Return the converted weights of a published model, with their configuration beside them.

    Missing files are fetched after their size, licence and time are printed. Nothing is fetched twice, and an
    interrupted transfer resumes. Afterwards no network is needed.

    Args:
        name: one of `model_names.PUBLISHED`.
        folder: folder of pre-trained networks; by default that of `xmask3d download`, or the user's.

    Raises:
        UserError: a download failed, or a file has not the published content.
    """
    folder = (folder or pretrained_folder()).resolve()
    weights, settings = folder / name / "model.safetensors", folder / name / "config.yaml"
    class_list, _, checkpoint = name.partition("-")
    items = [checkpoint, "clip", "sd_model"]
    places = {item: folder / (ITEMS[item].unpacked or ITEMS[item].file) for item in items}
    missing = [item for item in items if not places[item].exists() and not (item == checkpoint and weights.is_file())]
    if missing:
        make_folder(folder)
        print_plan(name, {item: (ITEMS[item].size, ITEMS[item].licence) for item in missing}, folder)
        need_space(folder, sum(ITEMS[item].size for item in missing))
    if not missing and weights.is_file() and settings.is_file():
        return weights
    with locked(folder / name, "a download"):
        for item in missing:
            places[item] = download(item, folder, folder)
        config = load_config(f"{class_list}/{checkpoint.upper()}")
        if not weights.is_file():
            convert(places[checkpoint], weights, config)
        config.model.clip = str(places["clip"])
        config.model.diffusion = str(places["sd_model"] / Path(config.model.diffusion).name)
        save_config(config, settings)
    return weights


def pretrained_folder() -> Path:
    """Return the folder of networks: `pretrained` here or in the repository, or else in the user's cache folder."""
    here = Path("pretrained")
    return here if here.is_dir() else REPOSITORY / "pretrained" if IS_CHECKOUT else CACHE / "pretrained"


def print_plan(name: str, parts: dict[str, tuple[int, str]], folder: Path) -> None:
    """Print the parts of a model to fetch, before fetching them.

    Args:
        parts: size in bytes and licence of each part, by name.
    """
    total = sum(size for size, _ in parts.values())
    minutes = max(1, round(total / RATE / 60))
    lines = [f"{name}: fetches {total / 1e9:.2f} GB into {folder}, once; about {minutes} min at {RATE / 1e6:.0f} MB/s"]
    lines += [f"  {part:14} {size / 1e9:5.2f} GB  licence: {licence}" for part, (size, licence) in parts.items()]
    print("\n".join(lines), file=sys.stderr, flush=True)
