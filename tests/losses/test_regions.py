"""Losses without labels, and that they fall in a few steps of the real classes."""

import dataclasses
from pathlib import Path

import pytest
import torch
import torch.nn.functional as F

from tests.helpers.losses import criterion_of
from tests.helpers.outputs import FRAME, random_batch, random_outputs
from tests.helpers.tiny import write_config
from xmask3d.build import make_losses
from xmask3d.config import LossConfig, load_config
from xmask3d.losses.criterion import Criterion
from xmask3d.losses.regions import RegionLoss, RegionSetLoss
from xmask3d.models.fusion import Fuser, fuse_training

REGIONS = 6


@pytest.fixture
def step():
    batch = random_batch()  # label maps of 0..5
    batch.labels, batch.binary_labels = torch.full_like(batch.labels, 5), torch.full_like(batch.labels, -1)
    outputs = random_outputs(batch)
    torch.manual_seed(4)
    known = torch.randn(batch.size, REGIONS, 6)
    outputs = dataclasses.replace(
        outputs, fused=fuse_training(Fuser(6, FRAME), outputs, batch), region_embeddings=known
    )
    criterion = Criterion(
        make_losses(LossConfig(num_points=50), "none", labelled=False),
        num_classes=5,
        frame_size=FRAME,
        novel_supervision="none",
        num_labels=REGIONS,
    )
    return criterion, criterion.make_step(outputs, batch, torch.randn(2, 6), torch.Generator().manual_seed(0))


def test_a_regions_points_are_averaged(step) -> None:
    _, made = step
    batch, maps = made.batch, made.batch.label_maps
    rows = maps.shape[1] / FRAME[0]
    distances = []
    for view in range(batch.size):
        mine = batch.point_batch == view
        places = (batch.pixels[mine] * rows).long()
        region = maps[view, places[:, 0], (batch.pixels[mine][:, 1] * maps.shape[2]) // FRAME[1]]
        for number in region.unique():
            mean = made.outputs.voxels_3d[mine][region == number].mean(0)
            distances.append(1 - F.cosine_similarity(mean, made.outputs.region_embeddings[view, number], dim=0))
    torch.testing.assert_close(RegionLoss("point_3d", 1.0, "3d").compute(made), torch.stack(distances).mean())


def test_masks_are_pulled_to_the_region_that_they_match(step) -> None:
    criterion, made = step
    shared = next(loss.shared for loss in criterion.losses if loss.name == "mask_class")
    assert isinstance(shared, RegionSetLoss)
    classes, masks, dices = shared(made)
    assert classes.shape == masks.shape == dices.shape == (3,) and (classes >= 0).all() and (classes <= 2).all()
    # The region that a mask is matched with is chosen by shape alone: with every region's embedding equal to those of
    # the masks, nothing is left to pull.
    same = torch.ones_like(made.outputs.region_embeddings)
    made.outputs.region_embeddings = same
    for prediction in made.outputs.masks:
        prediction.embeddings.data.fill_(1)
    assert float(shared(made)[0].detach().abs().max()) == pytest.approx(0, abs=1e-6)


def test_every_loss_is_finite_and_reaches_both_branches(step) -> None:
    criterion, made = step
    losses = criterion(made.outputs, made.batch, made.captions, epoch=99, generator=torch.Generator().manual_seed(1))
    assert "binary" not in losses and {"mask_class", "mask", "point_fused", "point_3d"} <= losses.keys()
    assert all(value.isfinite() for value in losses.values()) and float(losses["mask_regularisation"].detach()) > 0
    embeddings, voxels = made.outputs.masks[0].embeddings, made.outputs.voxels_3d
    assert all(g.abs().sum() > 0 for g in torch.autograd.grad(losses["total"], [embeddings, voxels]))
    # Losses of labels are as they were.
    assert criterion_of().num_labels == 6 and criterion_of().needs("regions") is False


def test_the_loss_falls_in_a_few_steps(tmp_path: Path) -> None:
    from xmask3d.engine.train import train

    path = write_config(tmp_path)
    overrides = ["train.supervision=none", "evaluate.gate=none", "train.lr_3d=5e-3", "train.lr_others=2e-3"]
    overrides += ["train.epochs=5", "train.feature_cache=true", "loss.mask_regularisation_start=0"]
    overrides += [f"loss.{name}=0" for name in ("caption_fused", "caption_3d", "caption_2d")]
    assert train(load_config(path, overrides)) == 0
    lines = [line for line in (tmp_path / "run" / "train.log").read_text().splitlines() if " loss " in line]
    totals = [float(line.split(" loss ")[1].split()[0]) for line in lines]
    assert len(totals) == 20 and sum(totals[-5:]) < 0.9 * sum(totals[:5])
