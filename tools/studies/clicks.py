"""Study of corrections: mean IoU by the number of simulated clicks, on the rooms clicked and on others.

A click goes to the middle of the largest connected place that is wrong, and says what it is.
"""

import argparse
import time
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch

from xmask3d.data.files import read_points
from xmask3d.errors import UserError, run_tool
from xmask3d.geometry.components import components
from xmask3d.geometry.nearest import nearest
from xmask3d.metrics.confusion import ConfusionMatrix
from xmask3d.segment.corrections import UNLABELLED, Corrections
from xmask3d.segment.query import TOUCHING
from xmask3d.segment.result import SegmentationResult
from xmask3d.segment.segmenter import Segmenter
from xmask3d.splits import Benchmark

CLICKS = (0, 1, 2, 3, 5, 10, 20)


def next_click(points: np.ndarray, labels: np.ndarray, truth: np.ndarray, ignored: int) -> int | None:
    """Return the point to click on, or None where all is right.

    Args:
        points: n x 3. labels, truth: n class ids. ignored: class of points without truth.
    """
    wrong = (labels != truth) & (truth != ignored)
    if not wrong.any():
        return None
    places = components(points, np.where(wrong, truth * (ignored + 2) + labels + 1, -1), TOUCHING)
    largest = np.flatnonzero(places == np.bincount(places[places >= 0]).argmax())
    return int(largest[nearest(points[largest], points[largest].mean(0)[None])[0]])


def click_through(
    result: SegmentationResult, truth: np.ndarray, most: int
) -> tuple[Corrections, list[np.ndarray], float]:
    """Click up to `most` times; returns the clicks, the labels after 0, 1, 2 ..., and seconds of the slowest answer."""
    corrections, labels, slowest = Corrections.none(result.features), [result.labels], 0.0
    for _ in range(most):
        point = next_click(result.points, labels[-1], truth, len(result.names))
        if point is None:
            break
        before = result.labels[point]
        start = time.monotonic()
        name = UNLABELLED if before < 0 else result.names[before]
        corrections.add(result.features, point, name, result.names[truth[point]])
        labels.append(corrections.apply(result.features, result.labels, result.names)[0])
        slowest = max(slowest, time.monotonic() - start)
    return corrections, labels, slowest


def first(corrections: Corrections, count: int) -> Corrections:
    """Return the first clicks."""
    return Corrections(corrections.features[:count], corrections.points[:count], corrections.before[:count],
                       corrections.after[:count], corrections.scans[:count], corrections.model)  # fmt: skip


def mean_iou(benchmark: Benchmark, labels: Sequence[np.ndarray], truths: Sequence[np.ndarray]) -> float:
    """Return the mean IoU in per cent of the classes that occur, over all scenes together."""
    matrix = ConfusionMatrix(benchmark.num_classes)
    for found, truth in zip(labels, truths, strict=True):
        matrix.update(torch.from_numpy(found), torch.from_numpy(truth))
    both, either, true = matrix.areas()
    return 100 * float((both / either.clamp(min=1))[true > 0].mean())


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("root", type=Path, help="processed data set, such as data/rooms")
    parser.add_argument("--checkpoint", type=Path)
    parser.add_argument("--scenes", type=int, default=12, help="number of validation scenes (12)")
    options = parser.parse_args()
    paths = sorted((options.root / "scannet_3d" / "val").glob("*.pth"))[: options.scenes]
    if len(paths) < 2:
        raise UserError(f"{options.root}: fewer than two validation scenes")
    segmenter = Segmenter.from_checkpoint(options.checkpoint)
    results = [segmenter(path, classes=segmenter.benchmark.name.partition("/")[0]) for path in paths]
    truths = [segmenter.benchmark.classes_of_points(read_points(path)[2]) for path in paths]
    clicked = [click_through(result, truth, CLICKS[-1]) for result, truth in zip(results, truths, strict=True)]
    print("clicks a room | the rooms clicked | the others, by clicks of every second room")
    for count in CLICKS:
        own = mean_iou(segmenter.benchmark, [labels[min(count, len(labels) - 1)] for _, labels, _ in clicked], truths)
        learned = [Corrections.none(results[0].features)] * 2
        for number, (corrections, _, _) in enumerate(clicked):
            learned[number % 2] = learned[number % 2].joined(first(corrections, count))
        others = [learned[1 - number % 2].apply(result.features, result.labels, result.names)[0]
                  for number, result in enumerate(results)]  # fmt: skip
        print(f"{count:3} | {own:.1f} | {mean_iou(segmenter.benchmark, others, truths):.1f}", flush=True)
    print(f"slowest answer to a click: {max(slowest for _, _, slowest in clicked):.2f} s")


if __name__ == "__main__":
    run_tool(main)
