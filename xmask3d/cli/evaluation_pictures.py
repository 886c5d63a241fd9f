"""Pictures and clouds of an evaluation: a bar chart, and input, truth and prediction of some scenes."""

from importlib.util import find_spec
from pathlib import Path

import numpy as np

from xmask3d.data.scene import Scene, SceneReader
from xmask3d.engine.results import Results, SceneResult
from xmask3d.metrics.scores import title_of
from xmask3d.splits import Benchmark
from xmask3d.visualize.cloud import class_palette, colors_to_bytes, label_palette, write_ply
from xmask3d.visualize.pictures import compare_labels, save_bar_chart, save_picture


def draw_evaluation(results: Results, reader: SceneReader, scenes: int = 0) -> None:
    """Write the bar chart of IoU by class, and a picture and coloured clouds for some of the scenes.

    Args:
        results: results of `xmask3d.engine.evaluate.evaluate`; all files are written into their folder.
        reader: reader of the same scenes.
        scenes: number of scenes to draw, evenly spaced.
    """
    fused, about = results.scores["fused"], results.about
    shown = {title_of(name): value for name, value in fused.headlines.items()}
    shown |= {group: fused.miou[group] for group in ("base", "novel")}
    title = f"{about['benchmark']}: " + ", ".join(f"{name} {100 * value:.1f}" for name, value in shown.items())
    chart, benchmark = results.folder / f"{results.name}.png", results.benchmark
    if find_spec("matplotlib"):
        save_bar_chart(chart, benchmark.class_names, fused.iou, benchmark.novel_mask, title)
    else:
        print("no matplotlib: no bar chart; pip install 'xmask3d[plots]' for it")
    for name in evenly(results.scenes, scenes):
        draw_scene(results.folder, reader.read_scene(name), results.benchmark)


def draw_scene(folder: Path, scene: Scene, benchmark: Benchmark) -> None:
    """Write input, truth and prediction of a scene as one picture, and truth and prediction as coloured clouds."""
    result = SceneResult.load(folder / "scenes" / f"{scene.name}.npz")
    assert result is not None
    palette = class_palette(benchmark.class_names)
    predicted = result.labels["fused"].astype(np.int64)
    picture = compare_labels(
        scene.points, colors_to_bytes(scene.colors), scene.labels, predicted, benchmark.class_names, palette
    )
    save_picture(picture, folder / "pictures" / f"{scene.name}.png")
    if result.objects is not None:
        names = [benchmark.class_names[class_id] for class_id in result.objects.classes]
        shown = result.objects.of_point, names, label_palette(len(names))
        picture = compare_labels(scene.points, colors_to_bytes(scene.colors), None, *shown)
        save_picture(picture, folder / "pictures" / f"{scene.name}_objects.png")
    clouds = folder / "clouds"
    write_ply(clouds / f"{scene.name}_input.ply", scene.points, colors_to_bytes(scene.colors))
    if scene.labels is not None:
        write_ply(clouds / f"{scene.name}_truth.ply", scene.points, palette[scene.labels], scene.labels)
    write_ply(clouds / f"{scene.name}_prediction.ply", scene.points, palette[predicted], predicted, result.confidence)


def evenly(names: list[str], count: int) -> list[str]:
    """Choose at most `count` of the names, evenly spaced."""
    if count >= len(names):
        return names
    return [names[int(i)] for i in np.linspace(0, len(names) - 1, count).round()] if count > 0 else []
