"""One picture that shows the method: a room in colour, its truth, the prediction, and what a view's masks are."""

from pathlib import Path

import numpy as np
from PIL import Image

from xmask3d.benchmark import load_benchmark
from xmask3d.config import Config
from xmask3d.data.samples import collate_usable
from xmask3d.engine.accelerator import make_accelerator
from xmask3d.engine.checkpoint import apply_weights, load_weights
from xmask3d.engine.evaluate import choose_scenes, evaluate_scene
from xmask3d.engine.labeller import Labeller
from xmask3d.errors import UserError
from xmask3d.models.build import build_model, build_reader, build_scene_views
from xmask3d.visualize.cloud import colors_to_bytes, label_palette
from xmask3d.visualize.pictures import compare_labels, save_picture
from xmask3d.visualize.views import draw_view


def make_figure(config: Config, checkpoint: Path, scene: str, view: int, path: Path) -> None:
    """Label a scene and write the figure.

    Args:
        config, checkpoint: of a run.
        scene: name of a validation scene with truth.
        view: which of its views to draw, from 0.
        path: PNG to write.

    Raises:
        UserError: no such scene or view, or one without usable points.
    """
    benchmark = load_benchmark(config.benchmark)
    reader = build_reader(config, benchmark, config.data.val_split)
    choose_scenes(reader, [scene])
    accelerator = make_accelerator(config.train.precision)
    assembly = build_model(config)
    apply_weights(assembly.model, load_weights(checkpoint), checkpoint)
    model, clip_text = assembly.model.to(accelerator.device), assembly.clip_text.to(accelerator.device)
    labeller = Labeller(model, clip_text, benchmark, config.evaluate, accelerator)

    views = build_scene_views(config, benchmark, reader, scene)
    sample = views[view] if 0 <= view < len(views) else None
    batch = collate_usable([sample])
    if batch is None:
        raise UserError(f"scene {scene} has no usable view {view}; it has {len(views)} views, counted from 0")
    outputs, labels = labeller(batch)
    assert batch.classes is not None
    below = draw_view(
        image=(batch.images[0].permute(1, 2, 0) * 255).round().byte().numpy(),
        mask_logits=outputs.mask_logits[0].float().cpu(),
        class_logits=outputs.class_logits[0][0].float().cpu(),
        pixels=batch.pixels.numpy(),
        frame_size=model.fuser.frame_size,
        truth=batch.classes.numpy(),
        predicted=labels.fused.cpu().numpy(),
        names=benchmark.class_names,
    )
    result = evaluate_scene(config, benchmark, reader, scene, labeller)
    cloud = reader.read_scene(scene)
    above = compare_labels(
        cloud.points,
        colors_to_bytes(cloud.colors),
        cloud.labels,
        result.labels["fused"].astype(np.int64),
        benchmark.class_names,
        label_palette(benchmark.num_classes),
    )
    save_picture(stack(above, below), path)


def stack(above: np.ndarray, below: np.ndarray) -> np.ndarray:
    """Two pictures, h x w x 3 uint8, one over the other; the lower is scaled to the width of the upper."""
    width = above.shape[1]
    height = round(below.shape[0] * width / below.shape[1])
    scaled = np.asarray(Image.fromarray(below).resize((width, height), Image.Resampling.LANCZOS))
    return np.concatenate([above, np.full((16, width, 3), 255, np.uint8), scaled])
