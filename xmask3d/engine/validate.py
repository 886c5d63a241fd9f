"""Validation during training: scores views on the points they see, without votes. It is not the evaluation."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
from accelerate.utils import gather_object
from torch.utils.data import DataLoader, Subset

from xmask3d.data.batch import Batch
from xmask3d.data.datasets import ValidationViews, collate_usable
from xmask3d.engine.batches import ignore_signals
from xmask3d.engine.signals import StopSignals
from xmask3d.inference.class_scores import ViewLabels
from xmask3d.inference.labeller import BRANCHES, Labeller, by_branch
from xmask3d.metrics.confusion import ConfusionMatrix
from xmask3d.models.outputs import Outputs
from xmask3d.splits import Benchmark
from xmask3d.workers import allowed_workers


@dataclass(frozen=True)
class ValidationSettings:
    """Settings of validations.

    Attributes:
        headlines: scores to report; the first decides which checkpoint is best.
        views_per_scene: number of views used per scene.
        batch_size, workers: views per forward, and loader processes.
    """

    headlines: Sequence[str]
    views_per_scene: int
    batch_size: int
    workers: int


def validate(
    labeller: Labeller,
    views: ValidationViews,
    benchmark: Benchmark,
    settings: ValidationSettings,
    stop: StopSignals,
    draw_view: Callable[..., np.ndarray] | None = None,
) -> tuple[dict[str, float], np.ndarray | None] | None:
    """Score some views of every scene. Processes share the views, and all get the sums.

    Args:
        views: views of the validation, with the epoch set.
        stop: signals, any of which ends the validation early.
        draw_view: draws one view, see `xmask3d.visualize.view_picture.draw_view`; None for no picture.

    Returns:
        Scores by name (such as fused_hiou, 2d_miou_novel, binary_accuracy) and a picture of the first view of this
        process; None if a signal came to any process.
    """
    accelerator = labeller.accelerator
    share = accelerator.process_index, accelerator.num_processes
    mine = views_of_process(len(views), settings.views_per_scene, *share)
    loader = DataLoader(
        Subset(views, mine),
        batch_size=settings.batch_size,
        collate_fn=collate_usable,
        num_workers=allowed_workers(settings.workers),
        worker_init_fn=ignore_signals,
    )
    device = accelerator.device
    matrices = {branch: ConfusionMatrix(benchmark.num_classes, device) for branch in BRANCHES}
    binary = ConfusionMatrix(2, device)
    picture = None
    for batch in loader:
        if stop.code:
            break
        if batch is None:
            continue
        outputs, labels = labeller(batch)
        for branch, predicted in by_branch(labels).items():
            matrices[branch].update(predicted, batch.classes)
        binary.update((outputs.binary_logits > 0).long(), batch.binary_labels)
        if picture is None and draw_view:
            picture = draw_view(**first_view(batch, outputs, labels, benchmark, labeller.model.fuser.frame_size))
    reduced = {branch: matrix.reduce() for branch, matrix in matrices.items()}
    scores = summarise(reduced, binary.reduce(), benchmark, settings.headlines)
    stopped = any(gather_object([stop.code > 0]))  # a process that received a signal has skipped some of its views
    return None if stopped else (scores, picture)


def views_of_process(count: int, each: int, process: int, processes: int) -> list[int]:
    """Return the indices of the views that a process scores; complete scenes, so that each is read by one process.

    Args:
        count: number of views.
        each: number of views per scene; the views of a scene are consecutive.
        process, processes: number of this process, and number of all processes.
    """
    return [index for index in range(count) if index // each % processes == process]


def summarise(
    matrices: dict[str, ConfusionMatrix], binary: ConfusionMatrix, benchmark: Benchmark, headlines: Sequence[str]
) -> dict[str, float]:
    """Average headlines, base and novel means of each branch, and the accuracy of the binary head."""
    summary: dict[str, float] = {}
    for branch, matrix in matrices.items():
        scores = matrix.scores(benchmark.groups, headlines)
        summary |= {f"{branch}_{name}": value for name, value in scores.headlines.items()}
        summary |= {f"{branch}_miou_{group}": scores.miou[group] for group in ("base", "novel")}
    return summary | {"binary_accuracy": binary.scores({"base": (1,), "novel": (0,)}).all_accuracy}


def first_view(batch: Batch, outputs: Outputs, labels: ViewLabels, benchmark: Benchmark, frame: tuple) -> dict:
    """Return the arguments of `xmask3d.visualize.view_picture.draw_view` for the first view of a batch."""
    first = int((batch.point_batch == 0).sum())  # points are ordered by sample
    assert batch.classes is not None
    return dict(
        image=(batch.images[0].permute(1, 2, 0) * 255).round().byte().cpu().numpy(),
        mask_logits=outputs.mask_logits[0].float().cpu(),
        class_logits=outputs.class_logits[0][0].float().cpu(),
        pixels=batch.pixels[:first].cpu().numpy(),
        frame_size=frame,
        truth=batch.classes[:first].cpu().numpy(),
        predicted=labels.fused[:first].cpu().numpy(),
        names=benchmark.class_names,
    )
