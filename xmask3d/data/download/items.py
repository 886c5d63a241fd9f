"""Items for download by name: processed ScanNet, its captions, networks, published checkpoints, furniture."""

import logging
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from xmask3d.data.download.archives import DamagedArchive, extract
from xmask3d.data.download.fetch import fetch, forget, read_records, record
from xmask3d.errors import UserError

log = logging.getLogger(__name__)

Kind = Literal["datasets", "checkpoints"]


@dataclass(frozen=True)
class Item:
    """Downloadable item.

    Attributes:
        kind: command that offers it.
        about: one line for the list.
        urls: the published address, then mirrors.
        file: name of the file that is downloaded.
        folder: folder that it belongs to, that of data sets or that of networks.
        unpacked: top entry of an archive, which exists once it is unpacked; None for a plain file.
        advice: next step for the user.
        size: approximate size of the download in bytes; 0 if unknown.
        licence: licence of the content, if it differs from that of the data set.
        sha256: digest of the file, if its publisher gives one.
    """

    kind: Kind
    about: str
    urls: tuple[str, ...]
    file: str
    folder: Literal["data", "pretrained"]
    unpacked: str | None = None
    advice: str = ""
    size: int = 0
    licence: str = ""
    sha256: str | None = None


def _cloud(key: str) -> str:
    return f"https://cloud.tsinghua.edu.cn/f/{key}/?dl=1"


def _drive(key: str) -> str:
    return f"https://drive.usercontent.google.com/download?id={key}&export=download&confirm=t"


def _checkpoint(benchmark: str, cloud: str, drive: str) -> Item:
    file = f"{benchmark.lower()}.pth.tar"
    return Item(
        "checkpoints",
        f"published weights of {benchmark}",
        (_cloud(cloud), _drive(drive)),
        file,
        "pretrained",
        advice=f"evaluate: sh scripts/eval.sh CONFIG pretrained/{file}",
        size=1_000_000_000,
        licence="MIT",
    )


_OFFICIAL = "https://raw.githubusercontent.com/wangzy22/XMask3D/main"
_CLIP_SHA256 = "b8cca3fd41ae0c99ba7e8951adf17d267cdb84cd88be6f7c2e0eca1737a03836"
_OPENSCENE = "https://cvg-data.inf.ethz.ch/openscene/data/scannet_processed"

ITEMS: dict[str, Item] = {
    "scannet_3d": Item(
        "datasets",
        "scene files of ScanNet with the 20 classes",
        (_cloud("9eb20ea4f218428ea928"),),
        "scannet_3d.tar.gz",
        "data",
        "scannet_3d",
    ),
    "scannet_2d": Item(
        "datasets",
        "frames of ScanNet: colour, depth, poses, labels",
        (_cloud("64b0ce0e837f4f2c9f12"),),
        "scannet_2d.tar.gz",
        "data",
        "scannet_2d",
    ),
    "scannet_3d_200": Item(
        "datasets",
        "raw category ids of the points, for the 200 classes",
        (_cloud("16d62d0c7af246c49002"),),
        "scannet_3d_200.tar.gz",
        "data",
        "scannet_3d_200",
    ),
    "captions": Item(
        "datasets",
        "captions of ScanNet's views, which only training needs",
        (f"{_OFFICIAL}/data/caption/caption_view_scannet_vit-gpt2-image-captioning_.json",),
        "captions.json",
        "data",
    ),
    "openscene_3d": Item(
        "datasets",
        "the scene files again, from OpenScene's server",
        (f"{_OPENSCENE}/scannet_3d.zip",),
        "openscene_3d.zip",
        "data",
        "scannet_3d",
    ),
    "openscene_2d": Item(
        "datasets",
        "frames without label pictures, from OpenScene's server",
        (f"{_OPENSCENE}/scannet_2d.zip",),
        "openscene_2d.zip",
        "data",
        "scannet_2d",
        "training needs label pictures too: xmask3d prepare makes them from raw ScanNet",
    ),
    "sd_model": Item(
        "datasets",
        "Stable Diffusion v1.3",
        (_cloud("8dce9b137f574e6eb57c"),),
        "sd_model.tar.gz",
        "pretrained",
        "sd_model",
        "the published configurations look for pretrained/sd_model/sd-v1-3.ckpt",
        size=4_000_000_000,
        licence="CreativeML OpenRAIL-M, which restricts uses",
    ),
    "clip": Item(
        "datasets",
        "OpenAI's CLIP ViT-L/14, which open_clip otherwise fetches itself",
        (f"https://openaipublic.azureedge.net/clip/models/{_CLIP_SHA256}/ViT-L-14.pt",),
        "ViT-L-14.pt",
        "pretrained",
        size=932_768_134,
        licence="MIT",
        sha256=_CLIP_SHA256,
    ),
    "openai": Item(
        "datasets",
        "CLIP ViT-L/14 in Hugging Face's layout, the text encoder of Stable Diffusion",
        (_cloud("3890f1df1c5248a7a6e8"),),
        "openai.tar.gz",
        "pretrained",
        "openai",
    ),
    "b15n4": _checkpoint("B15N4", "dc6459840fe542a288f8", "1A-QsKXwrvXLKedLQdWl6qoR-JuFdrRO-"),
    "b12n7": _checkpoint("B12N7", "5d9671b1f0a9499d821e", "1ZSdoLcR8fr1MtXy5n3y-diFJJ5j1YLF7"),
    "b10n9": _checkpoint("B10N9", "e7f41cd454a1469d865b", "1bsHBoFDXZIo-3UU1JE0zXRbAJ9q9_4Be"),
    "b170n30": _checkpoint("B170N30", "b88c57c7093740f59d75", "1VgN6WukdOBBxL4C1t0mve6ZeLDVQKwoh"),
    "b150n50": _checkpoint("B150N50", "a55ee7d62caa4e82bb77", "1tQjGznq2x8df7c_HnlnsOb_peMgq-_ZL"),
}
FURNITURE = "furniture"


def names(kind: Kind) -> dict[str, str]:
    """Return the items that a command offers: {name: one line about it}."""
    offered = {name: item.about for name, item in ITEMS.items() if item.kind == kind}
    if kind == "datasets":
        offered[FURNITURE] = "furniture models that the synthetic rooms are made of (120 MB)"
    return offered


def download(
    name: str,
    data: Path,
    pretrained: Path,
    *,
    keep_archive: bool = False,
    urls: tuple[str, ...] | None = None,
    furniture: Callable[[], Path] | None = None,
) -> Path:
    """Download and unpack one item; existing files are left alone.

    Args:
        name: a key of `ITEMS`, or "furniture".
        data: folder for data sets, such as data/scannet.
        pretrained: folder for networks and checkpoints.
        keep_archive: keep an archive after unpacking it.
        urls: addresses to try instead of the published ones.
        furniture: function that gets the furniture and returns its folder.

    Returns:
        The file, or the folder that the archive holds.

    Raises:
        UserError: the name is unknown, or every address failed.
    """
    if name == FURNITURE and furniture is not None:
        return furniture()
    if name not in ITEMS:
        raise UserError(f"there is no download '{name}'; known: {', '.join([*ITEMS, FURNITURE])}")
    item = ITEMS[name]
    folder = Path(data if item.folder == "data" else pretrained)
    done = folder / (item.unpacked or item.file)
    facts = read_records(folder).get(item.file, {})
    if item.unpacked and done.exists() and facts.get("unpacked"):
        if facts.get("archive") == "removed":  # missing if the process was killed just before
            (folder / item.file).unlink(missing_ok=True)
        return done
    archive = _first(urls or item.urls, folder / item.file, item.sha256)
    if item.unpacked:
        try:
            extract(archive, folder)
        except DamagedArchive:
            forget(folder, item.file)  # otherwise the recorded digest of the damaged archive would refuse an intact one
            raise
        if not done.exists():
            raise UserError(f"{archive}: holds no '{item.unpacked}'; unpacked into {folder}, look there")
        record(folder, item.file, unpacked=True, archive="kept" if keep_archive else "removed")
        if not keep_archive:
            archive.unlink()
    return done


def _first(urls: tuple[str, ...], target: Path, sha256: str | None) -> Path:
    problems = []
    for url in urls:
        try:
            return fetch(url, target, sha256=sha256)
        except UserError as error:
            problems.append(str(error))
            log.warning("%s", error)
    if len(problems) == 1:
        raise UserError(problems[0])
    raise UserError(f"{target.name}: none of {len(urls)} places worked; the last said: {problems[-1]}")
