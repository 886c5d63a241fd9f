"""Oracle study of what limits the scores: the evaluation with parts of the prediction replaced by the truth."""

import argparse
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor
from tqdm import tqdm

from xmask3d.build import build_reader, evaluation_settings
from xmask3d.checkpoints.checkpoint import find_checkpoint
from xmask3d.config import Config, load_config
from xmask3d.data.batch import Batch
from xmask3d.data.scene import SceneReader
from xmask3d.engine.accelerator import make_accelerator
from xmask3d.engine.evaluate import evaluate_scene
from xmask3d.errors import UserError, run_tool
from xmask3d.inference.labeller import Encodings, Labeller
from xmask3d.inference.settings import LabelSettings
from xmask3d.metrics.confusion import ConfusionMatrix
from xmask3d.models.fusion import sample_at_points
from xmask3d.models.outputs import Outputs
from xmask3d.open_model import open_labeller
from xmask3d.splits import load_benchmark

SURE = 10.0
"""Logit of what is known."""


@dataclass(frozen=True)
class Truth:
    """Parts of the prediction that are replaced.

    Attributes:
        gate: base or novel, for every voxel with labelled points, as most of them are.
        masks: one mask a class in the picture, its own pixels. Each takes embedding and classes of the predicted mask
            that overlaps it most, and CLIP's embedding of the new mask.
    """

    gate: bool = False
    masks: bool = False


class TruthLabeller(Labeller):
    """Labeller that is given part of the truth."""

    def __init__(self, labeller: Labeller, settings: LabelSettings, reader: SceneReader, truth: Truth) -> None:
        """Wrap a labeller.

        Args:
            labeller: one that knows nothing of the truth.
            settings: decisions in place of its own.
            reader: reader of the scenes; its views need label maps for `truth.masks`.
            truth: parts of the prediction that are replaced.
        """
        given = labeller.model, labeller.text, labeller.novel
        super().__init__(*given, settings, labeller.accelerator, labeller.encode_captions)
        self.reader, self.truth = reader, truth

    def run(self, batch: Batch, encodings: Encodings | None = None) -> Outputs:
        """Correct the model's outputs, and fuse the features again."""
        outputs = super().run(batch, encodings)
        if self.truth.gate:
            outputs = replace(outputs, binary_logits=_true_gate(outputs.binary_logits, batch))
        if self.truth.masks:
            outputs = self._with_true_masks(outputs, batch)
        return replace(outputs, fused=self.model.fuse(outputs, batch, self.gateable))

    def _with_true_masks(self, outputs: Outputs, batch: Batch) -> Outputs:
        frame_size = self.model.fuser.frame_size
        masks = torch.stack([self._class_masks(*names) for names in zip(batch.scenes, batch.views, strict=True)])
        masks = masks.to(batch.images)
        best = _best_overlap(outputs.mask_logits, masks, batch, frame_size)

        def take(values: Tensor) -> Tensor:
            return values.gather(1, best[..., None].expand(-1, -1, values.shape[-1]))

        final = replace(outputs.masks[0], mask_logits=masks, embeddings=take(outputs.mask_embeddings))
        return replace(
            outputs,
            masks=[final],
            class_logits=[take(outputs.class_logits[0])],
            clip_embeddings=self.model.mask_clip(batch.images, masks),
        )

    def _class_masks(self, scene: str, view: str) -> Tensor:
        """Return K x H x W logits of the pixels of each class."""
        labels = self.reader.read_view(scene, view).label_map
        if labels is None:
            raise UserError(f"view {view} of {scene}: no label picture, from which the true masks are made")
        inside = labels == np.arange(len(self.novel))[:, None, None]
        return torch.from_numpy(np.where(inside, SURE, -SURE))


def _true_gate(logits: Tensor, batch: Batch) -> Tensor:
    """Return N logits, sure where the point's voxel has a label; predictions differ by voxel, not by point."""
    assert batch.binary_labels is not None
    votes = torch.where(batch.binary_labels >= 0, batch.binary_labels * 2 - 1, 0)
    sums = votes.new_zeros(len(batch.voxel_coords)).scatter_add_(0, batch.point_to_voxel, votes)
    sign = sums[batch.point_to_voxel].sign()
    return torch.where(sign != 0, sign * SURE, logits)


def _best_overlap(predicted: Tensor, true: Tensor, batch: Batch, frame_size: tuple[int, int]) -> Tensor:
    """Find for each true mask the predicted one of largest intersection over union at the points: B x K int64."""
    inside = sample_at_points(predicted, batch.pixels, batch.point_batch, frame_size) > 0
    truth = sample_at_points(true, batch.pixels, batch.point_batch, frame_size) > 0
    samples = F.one_hot(batch.point_batch, batch.size).to(torch.float32)
    both = torch.einsum("nb,nk,nq->bkq", samples, truth.float(), inside.float())
    either = torch.einsum("nb,nk->bk", samples, truth.float())[..., None] - both
    either = either + torch.einsum("nb,nq->bq", samples, inside.float())[:, None]
    return (both / either.clamp(min=1)).argmax(-1)


VARIANTS: dict[str, tuple[Truth, dict[str, Any]]] = {
    "as predicted": (Truth(), {}),
    "true gate": (Truth(gate=True), {}),
    "true masks": (Truth(masks=True), {}),
    "true gate and masks": (Truth(gate=True, masks=True), {}),
    "true gate and masks, CLIP alone": (Truth(gate=True, masks=True), {"base_ratio": 0.0, "novel_ratio": 0.0}),
}
"""Name of a variant: what of the truth it knows, and changed settings of the evaluation."""


def score_with_truth(config: Config, checkpoint: Path) -> Iterator[tuple[str, tuple[float, float, float]]]:
    """Compute hIoU and mean IoU over base and novel classes of each of `VARIANTS`, in one process.

    Args:
        config, checkpoint: see `evaluate`.
    """
    accelerator, benchmark = make_accelerator(config.train.precision), load_benchmark(config.benchmark)
    reader = build_reader(config, benchmark, config.data.val_split)
    plain, evaluation = open_labeller(config, checkpoint, benchmark, accelerator), evaluation_settings(config)
    for name, (truth, changes) in VARIANTS.items():
        labeller = TruthLabeller(plain, replace(plain.settings, **changes), reader, truth)
        matrix = ConfusionMatrix(benchmark.num_classes)
        for scene in tqdm(reader.scene_names, desc=name, unit="scene", leave=False, disable=None):
            result = evaluate_scene(reader, benchmark, scene, labeller, evaluation)
            matrix.counts += torch.from_numpy(result.counts["fused"])
        scores = matrix.scores(benchmark.groups)
        yield name, (scores.headlines["hiou"], scores.miou["base"], scores.miou["novel"])


def main() -> int:
    """Parse arguments, evaluate each variant, print a table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("config", type=Path, help="configuration of the run, such as config/rooms/B15N4.yaml")
    parser.add_argument("checkpoint", help="'newest' or 'best' of the run's output folder, or a file")
    parser.add_argument("overrides", nargs="*", help="key=value overrides")
    arguments = parser.parse_intermixed_args()
    config = load_config(arguments.config, arguments.overrides)

    checkpoint = find_checkpoint(arguments.checkpoint, config.output)
    print(f"{'':38}{'hIoU':>7}{'base':>7}{'novel':>7}", flush=True)
    for name, scores in score_with_truth(config, checkpoint):
        print(f"{name:38}" + "".join(f"{100 * value:7.1f}" for value in scores), flush=True)
    return 0


if __name__ == "__main__":
    run_tool(main)
