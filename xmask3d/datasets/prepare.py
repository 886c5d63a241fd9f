"""Preparation of the scenes of a data set's release."""

from collections.abc import Callable
from pathlib import Path

from xmask3d.datasets import arkitscenes, matterport, replica, scannetpp
from xmask3d.datasets.raw_scene import RawScene, write_scene

DATASETS = {"scannetpp": scannetpp, "matterport": matterport, "arkitscenes": arkitscenes, "replica": replica}
STEPS = {"scannetpp": 60, "matterport": 1, "arkitscenes": 10, "replica": 20}
"""Every how many frames one is written by default: about one a second of a video, all of a panorama."""


def prepare(dataset: str, raw: Path, out: Path, frames: Path, split: str, name: str, step: int) -> list[str] | None:
    """Prepare one scene, unless it is there already.

    Args:
        frames: folder of the frames, where they lie apart from the meshes.
        split: train, val or test.
        step: every how many frames one is written.

    Returns:
        Notes on what was left out; None for a scene that was there.

    Raises:
        UserError: a file is missing or damaged.
    """
    if (out / f"{dataset}_3d" / split / f"{name}.pth").is_file():
        return None
    read: Callable[[Path, str, Path], RawScene] = DATASETS[dataset].read_scene
    return write_scene(read(raw, name, frames), out, dataset, split, name, step)
