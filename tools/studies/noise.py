"""Study of noise: the evaluation, with and without regions, of clouds whose points and colours are off."""

import argparse
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from zlib import crc32

import numpy as np
import torch
from tqdm import tqdm

from xmask3d.build import build_reader, evaluation_settings
from xmask3d.checkpoints.checkpoint import find_checkpoint
from xmask3d.config import Config, load_config
from xmask3d.data.scene import Scene, SceneReader
from xmask3d.engine.accelerator import make_accelerator
from xmask3d.engine.evaluate import evaluate_scene
from xmask3d.errors import run_tool
from xmask3d.metrics.confusion import ConfusionMatrix
from xmask3d.open_model import open_labeller
from xmask3d.splits import load_benchmark


@dataclass(frozen=True)
class Noise:
    """Normal noise of a cloud.

    Attributes:
        position: standard deviation of each coordinate in metres.
        color: standard deviation of each channel, as a share of its range.
    """

    position: float = 0.0
    color: float = 0.0

    def __str__(self) -> str:
        """Name the noise as a row of the table."""
        return f"{1000 * self.position:.0f} mm, {self.color:.0%}"

    def add(self, scene: Scene) -> Scene:
        """Return a scene with noise, the same at each call."""
        rng = np.random.default_rng(crc32(scene.name.encode()))
        points = scene.points + rng.normal(0, 1, scene.points.shape) * self.position
        colors = scene.colors + rng.normal(0, 1, scene.colors.shape) * 2 * self.color  # channels are from -1 to 1
        return replace(scene, points=points.astype(np.float32), colors=np.clip(colors, -1, 1).astype(np.float32))


class NoisyReader:
    """Reader of scenes with noise; views are as they were."""

    def __init__(self, reader: SceneReader, noise: Noise) -> None:
        self._reader, self._noise = reader, noise
        self.scene_names, self.view_names, self.read_view = reader.scene_names, reader.view_names, reader.read_view
        self.caption, self.sources, self.visibility_files = reader.caption, reader.sources, self._no_files

    def read_scene(self, name: str) -> Scene:
        """Read a scene, with noise."""
        return self._noise.add(self._reader.read_scene(name))

    @staticmethod
    def _no_files(scene: str, view: str) -> list[Path]:
        """Return no files: what a view sees of a noisy cloud is not kept."""
        return []


LEVELS = (Noise(), Noise(0.005, 0.1), Noise(0.01, 0.1), Noise(0.02, 0.1), Noise(0.02, 0.2))


def score_with_noise(
    config: Config, checkpoint: Path, scenes: int | None = None
) -> Iterator[tuple[str, str, tuple[float, float, float]]]:
    """Compute hIoU and mean IoU over base and novel classes for each of `LEVELS`, with each kind of regions.

    Args:
        config, checkpoint: see `xmask3d.engine.evaluate.evaluate`.
        scenes: number of scenes, the first ones; all by default.
    """
    benchmark = load_benchmark(config.benchmark)
    reader = build_reader(config, benchmark, config.data.val_split)
    labeller = open_labeller(config, checkpoint, benchmark, make_accelerator(config.train.precision))
    settings = evaluation_settings(config)
    for noise in LEVELS:
        noisy = NoisyReader(reader, noise)
        for regions in ("none", "votes", "gate"):
            labeller.settings = replace(labeller.settings, regions=regions)
            matrix = ConfusionMatrix(benchmark.num_classes)
            for name in tqdm(reader.scene_names[:scenes], desc=f"{noise}, {regions}", leave=False, disable=None):
                result = evaluate_scene(noisy, benchmark, name, labeller, settings)
                matrix.counts += torch.from_numpy(result.counts["fused"])
            scores = matrix.scores(benchmark.groups)
            yield str(noise), regions, (scores.headlines["hiou"], scores.miou["base"], scores.miou["novel"])


def main() -> int:
    """Parse arguments, evaluate each level of noise, print a table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("config", type=Path, help="configuration of the run, such as config/rooms/B15N4.yaml")
    parser.add_argument("checkpoint", help="'newest' or 'best' of the run's output folder, or a file")
    parser.add_argument("overrides", nargs="*", help="key=value overrides")
    parser.add_argument("--scenes", type=int, metavar="N", help="only the first N scenes")
    arguments = parser.parse_intermixed_args()
    config = load_config(arguments.config, arguments.overrides)
    checkpoint = find_checkpoint(arguments.checkpoint, config.output)
    print(f"{'noise':14}{'regions':>8}{'hIoU':>7}{'base':>7}{'novel':>7}", flush=True)
    for noise, regions, scores in score_with_noise(config, checkpoint, arguments.scenes):
        print(f"{noise:14}{regions:>8}" + "".join(f"{100 * value:7.1f}" for value in scores), flush=True)
    return 0


if __name__ == "__main__":
    run_tool(main)
