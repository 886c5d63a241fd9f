"""Study of what less work costs: labels by fewer views, smaller pictures or points alone, beside all of them."""

import argparse
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
from tqdm import tqdm

from xmask3d.data.files import read_points
from xmask3d.errors import UserError, run_tool
from xmask3d.segment.segmenter import Segmenter

SHARES = (0.1, 0.05, 0.02)


def remember_views(segmenter: Segmenter) -> None:
    """Let the networks look at each view once, whatever is asked: ways of one picture size then share the work."""
    labeller, known = segmenter._labeller, {}
    forward = labeller._forward

    def look_up(samples: list[Any], text: Any) -> tuple:
        key = samples[0].scene, samples[0].view
        if key not in known:
            known.clear() if known and next(iter(known))[0] != key[0] else None
            known[key] = forward(samples, text)
        return known[key]

    labeller._forward = look_up  # type: ignore[method-assign]


def compare(segmenters: dict[int, Segmenter], scene: Path) -> Iterator[tuple[str, int, float, float]]:
    """Yield of each way: its name, views looked at, share of labels as by everything, share of points that are right.

    Args:
        segmenters: by picture size, that of training first.
        scene: .pth file of a labelled scene in ScanNet's processed layout.
    """
    first, *others = segmenters
    whole = segmenters[first]
    classes = whole.config.benchmark
    ids = read_points(scene)[2]
    if ids is None:
        raise UserError(f"{scene}: has no labels to compare with")
    truth = whole.benchmark.classes_of_points(ids)
    known = (truth >= 0) & (truth < whole.benchmark.num_classes)
    ways: list[tuple[str, Segmenter, dict[str, Any]]] = [("all views", whole, {})]
    ways += [(f"--settle {share:g}", whole, {"settle": share}) for share in SHARES]
    ways += [(f"--image-size {size}", segmenters[size], {}) for size in others]
    ways += [("--fast", whole, {"fast": True})]
    everything = None
    for name, segmenter, options in ways:
        result = segmenter(scene, classes=classes, **options)
        everything = result.labels if everything is None else everything
        yield (
            name,
            int(result.about["views"]),
            float((result.labels == everything).mean()),
            float((result.labels == truth)[known].mean()),
        )


def parse(arguments: list[str] | None = None) -> argparse.Namespace:
    """Parse command-line arguments."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("scenes", nargs="+", type=Path, help=".pth files of labelled scenes")
    parser.add_argument("--model", default="shipped", help="as --model of segment (default %(default)s)")
    parser.add_argument("--image-size", nargs="*", type=int, default=[128, 96], help="further sizes of pictures")
    return parser.parse_args(arguments)


def main() -> int:
    """Print a Markdown table of means over the scenes."""
    args = parse()
    segmenters = {}
    for size in (0, *args.image_size):
        segmenter = Segmenter.from_pretrained(args.model, device="cpu", batch_size=1, image_size=size or None)
        remember_views(segmenter)
        segmenters[size] = segmenter
    rows: dict[str, list[tuple[int, float, float]]] = {}
    for scene in tqdm(args.scenes, unit="scene", disable=None):
        for name, *numbers in compare(segmenters, scene):
            rows.setdefault(name, []).append(tuple(numbers))  # type: ignore[arg-type]
            print(scene.stem, name, *numbers, flush=True)
    print("\n| | views | labels as by all | least of a scene | points right |\n| --- | --- | --- | --- | --- |")
    for name, found in rows.items():
        views, same, right = np.array(found).T
        print(f"| `{name}` | {views.mean():.1f} | {same.mean():.1%} | {same.min():.1%} | {right.mean():.1%} |")
    return 0


if __name__ == "__main__":
    run_tool(main)
