"""Picture of the method: a room in colour, its truth, the prediction, and the masks of a view."""

import argparse
from pathlib import Path

import numpy as np
from PIL import Image

from xmask3d.build import build_reader, evaluation_settings
from xmask3d.checkpoints.checkpoint import find_checkpoint
from xmask3d.config import Config, load_config
from xmask3d.data.datasets import collate_usable
from xmask3d.data.scene import choose_scenes
from xmask3d.engine.accelerator import make_accelerator
from xmask3d.engine.evaluate import evaluate_scene
from xmask3d.engine.validate import first_view
from xmask3d.errors import UserError, run_tool
from xmask3d.open_model import open_labeller
from xmask3d.splits import load_benchmark
from xmask3d.visualize.cloud import class_palette, colors_to_bytes
from xmask3d.visualize.pictures import compare_labels, save_picture
from xmask3d.visualize.view_picture import draw_view


def make_figure(config: Config, checkpoint: Path, scene: str, view: int, path: Path) -> None:
    """Label a scene and write the figure.

    Args:
        config, checkpoint: configuration and checkpoint of a run.
        scene: name of a validation scene with truth.
        view: index of the view to draw, from 0.
        path: PNG to write.

    Raises:
        UserError: no such scene or view, or one without usable points.
    """
    benchmark = load_benchmark(config.benchmark)
    reader = build_reader(config, benchmark, config.data.val_split)
    choose_scenes(reader, [scene])
    accelerator = make_accelerator(config.train.precision)
    labeller, settings = open_labeller(config, checkpoint, benchmark, accelerator), evaluation_settings(config)

    views = settings.open_views(reader, benchmark, scene)
    sample = views[view] if 0 <= view < len(views) else None
    batch = collate_usable([sample])
    if batch is None:
        raise UserError(f"scene {scene} has no usable view {view}; it has {len(views)} views, counted from 0")
    outputs, labels = labeller(batch)
    below = draw_view(**first_view(batch, outputs, labels, benchmark, labeller.model.fuser.frame_size))
    result = evaluate_scene(reader, benchmark, scene, labeller, settings)
    cloud = reader.read_scene(scene)
    above = compare_labels(
        cloud.points,
        colors_to_bytes(cloud.colors),
        cloud.labels,
        result.labels["fused"].astype(np.int64),
        benchmark.class_names,
        class_palette(benchmark.class_names),
    )
    save_picture(stack(above, below), path)


def stack(above: np.ndarray, below: np.ndarray) -> np.ndarray:
    """Stack two pictures, h x w x 3 uint8, one over the other; the lower is scaled to the width of the upper."""
    width = above.shape[1]
    height = round(below.shape[0] * width / below.shape[1])
    scaled = np.asarray(Image.fromarray(below).resize((width, height), Image.Resampling.LANCZOS))
    return np.concatenate([above, np.full((16, width, 3), 255, np.uint8), scaled])


def main() -> int:
    """Parse arguments and write the figure."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("config", type=Path, help="configuration of the run")
    parser.add_argument("checkpoint", help="'newest' or 'best' of the run's output folder, or a file")
    parser.add_argument("overrides", nargs="*", help="key=value overrides")
    parser.add_argument("--scene", required=True, help="name of a validation scene")
    parser.add_argument("--view", type=int, default=0, help="which of its views (default %(default)s)")
    parser.add_argument("--out", type=Path, default=Path("fig/rooms.png"), help="PNG to write (default %(default)s)")
    arguments = parser.parse_intermixed_args()
    config = load_config(arguments.config, arguments.overrides)

    make_figure(
        config, find_checkpoint(arguments.checkpoint, config.output), arguments.scene, arguments.view, arguments.out
    )
    print(arguments.out)
    return 0


if __name__ == "__main__":
    run_tool(main)
