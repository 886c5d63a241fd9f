"""Picture of a set of rooms: colour above labels."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from xmask3d.data.prepare.labels import NYU20
from xmask3d.files import atomic_write

COLUMNS = 8
SHOWN = 12

PALETTE = np.array([(174, 199, 232), (152, 223, 138), (31, 119, 180), (255, 187, 120), (188, 189, 34), (140, 86, 75),
                    (255, 152, 150), (214, 39, 40), (197, 176, 213), (148, 103, 189), (196, 156, 148), (23, 190, 207),
                    (247, 182, 210), (219, 219, 141), (255, 127, 14), (158, 218, 229), (44, 160, 44), (112, 128, 144),
                    (227, 119, 194), (82, 84, 163)], np.uint8)  # fmt: skip
"""The colours of classes that are commonly used for ScanNet."""


def write_contact_sheet(out: Path, scenes: Sequence[tuple[str, str]]) -> Path:
    """Draw frames of up to twelve rooms, alternating between training and validation.

    Args:
        scenes: (split, scene) of every room.

    Returns:
        `out/contact_sheet.png`: a strip of colour frames and a strip of their labels per room.
    """
    by_split = [[scene for split, scene in scenes if split == name] for name in ("train", "val")]
    chosen = [scene for part in by_split for scene in part[: SHOWN // 2 if all(by_split) else SHOWN]]
    colors = np.zeros((256, 3), np.uint8)
    colors[list(NYU20)] = PALETTE
    strips = []
    for scene in chosen:
        folder = out / "scannet_2d" / scene
        stems = sorted((path.stem for path in (folder / "color").glob("*.jpg")), key=int)
        stems = [stems[int(i)] for i in np.linspace(0, len(stems) - 1, COLUMNS)]
        strips.append(_strip([folder / "color" / f"{stem}.jpg" for stem in stems], None))
        strips.append(_strip([folder / "label" / f"{stem}.png" for stem in stems], colors))
    path = out / "contact_sheet.png"
    atomic_write(path, Image.fromarray(np.concatenate(strips)).save)
    return path


def _strip(paths: Sequence[Path], colors: NDArray[np.uint8] | None) -> NDArray[np.uint8]:
    pictures = []
    for path in paths:
        with Image.open(path) as image:
            array = np.asarray(image)[::2, ::2]
        pictures.append(array if colors is None else colors[array])
    return np.concatenate(pictures, 1)
