"""Evaluation with parts of the truth."""

from pathlib import Path

import pytest
import torch

from tests.helpers.outputs import FRAME, random_batch
from tools.studies.oracle import SURE, VARIANTS, Truth, TruthLabeller, _best_overlap, score_with_truth
from xmask3d.build import build_labeller, build_model, build_reader, evaluation_settings
from xmask3d.config import load_config
from xmask3d.data.batch import Batch
from xmask3d.data.datasets import collate_usable
from xmask3d.engine.accelerator import make_accelerator
from xmask3d.splits import load_benchmark


@pytest.fixture(scope="module")
def parts(tiny: Path) -> tuple:
    config = load_config(tiny)
    assembly, benchmark = build_model(config), load_benchmark(config.benchmark)
    reader = build_reader(config, benchmark, "val")
    views = evaluation_settings(config).open_views(reader, benchmark, reader.scene_names[0])
    batch = collate_usable([views[i] for i in range(2)])
    assert batch is not None

    def make(truth: Truth) -> TruthLabeller:
        accelerator = make_accelerator("float32")
        plain = build_labeller(config, assembly, benchmark, accelerator)
        return TruthLabeller(plain, plain.settings, reader, truth)

    return make, benchmark, batch


def test_the_true_gate_leaves_only_classes_of_the_right_kind(parts: tuple) -> None:
    make, benchmark, batch = parts
    _, labels = make(Truth(gate=True))(batch)
    novel = torch.from_numpy(benchmark.novel_mask)
    for voxel in batch.point_to_voxel.unique():
        inside = batch.point_to_voxel == voxel
        base, other = (int((batch.binary_labels[inside] == kind).sum()) for kind in (1, 0))
        if base != other:
            assert (novel[labels.fused[inside]] == (other > base)).all()
    assert (batch.binary_labels == 0).any() and (batch.binary_labels == 1).any()


def test_true_masks_are_the_pixels_of_the_classes(parts: tuple) -> None:
    make, benchmark, batch = parts
    labeller = make(Truth(masks=True))
    outputs, _ = labeller(batch)
    plain, _ = make(Truth())(batch)
    maps = torch.stack(
        [
            torch.from_numpy(labeller.reader.read_view(scene, view).label_map).long()
            for scene, view in zip(batch.scenes, batch.views, strict=True)
        ]
    )
    inside = outputs.mask_logits == SURE
    assert inside.shape[1] == benchmark.num_classes
    for number in range(benchmark.num_classes):
        assert torch.equal(inside[:, number], maps == number)
    rows = outputs.mask_embeddings[0]
    assert all((row == plain.mask_embeddings[0]).all(-1).any() for row in rows)
    assert outputs.clip_embeddings.shape[:2] == outputs.mask_embeddings.shape[:2]
    assert torch.equal(outputs.fused.embeddings, outputs.mask_embeddings)  # fused again, with the true masks


def test_the_overlap_counts_points_of_the_own_view() -> None:
    batch: Batch = random_batch(points=(30, 30))
    left = torch.full((2, 1, *FRAME), -1.0)
    left[..., : FRAME[1] // 2] = 1
    predicted = torch.cat([-left, left, torch.ones_like(left)], 1)
    predicted[1] = predicted[1].flip(0)
    assert _best_overlap(predicted, torch.cat([left, -left], 1), batch, FRAME).tolist() == [[1, 0], [1, 2]]


def test_every_variant_is_scored(tiny: Path, finished: Path) -> None:
    rows = dict(score_with_truth(load_config(tiny), finished / "checkpoints" / "step-00000008.pt"))
    assert list(rows) == list(VARIANTS)
    assert all(0 <= value <= 1 for scores in rows.values() for value in scores)
    hiou, base, novel = rows["true gate and masks"]
    assert hiou == pytest.approx(2 * base * novel / max(base + novel, 1e-9))
