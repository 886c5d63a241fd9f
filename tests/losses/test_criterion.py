import dataclasses

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from tests.helpers.golden import GOLDEN
from tests.helpers.losses import REGULARISED, criterion_of
from tests.helpers.outputs import FRAME, random_batch, random_outputs
from tests.parity.run import run_case
from xmask3d.data.batch import Batch
from xmask3d.errors import UserError
from xmask3d.losses.criterion import Criterion
from xmask3d.losses.loss import Loss, LossStep
from xmask3d.losses.mask_losses import TargetCount
from xmask3d.losses.point_losses import (
    binary_loss,
    binary_loss_unlabelled,
    binary_targets,
    caption_loss,
    mean_mask_feature,
    mean_per_sample,
    never_all_ignored,
    point_cross_entropy,
)
from xmask3d.losses.regularisation import (
    choose_masks,
    covered_points,
    eligible_masks,
    mask_confidence,
    mask_regularisation,
)
from xmask3d.losses.terms import PointLoss
from xmask3d.models.fusion import Fuser, fuse_training
from xmask3d.models.outputs import Outputs
from xmask3d.models.similarity import cosine_logits

NAMES = {"mask_class", "mask", "dice", "mask_class_aux", "mask_aux", "dice_aux", "point_fused", "point_3d",
         "caption_fused", "caption_3d", "caption_2d", "binary", "total"}  # fmt: skip


def compute(
    batch: Batch, outputs: Outputs, *, regularise: bool = True, seed: int = 0, **options: object
) -> dict[str, Tensor]:
    criterion = criterion_of(num_points=50, **options)
    torch.manual_seed(4)
    fused = fuse_training(Fuser(6, FRAME).to(outputs.points_3d.dtype), outputs, batch)
    outputs = dataclasses.replace(outputs, fused=fused)
    captions = torch.randn(batch.size, 6, generator=torch.Generator().manual_seed(9))
    generator = torch.Generator().manual_seed(seed)
    return criterion(outputs, batch, captions, epoch=REGULARISED if regularise else 0, generator=generator)


def leaves(outputs: Outputs) -> list[Tensor]:
    predictions = [tensor for m in outputs.masks for tensor in (m.mask_logits, m.embeddings)]
    return [*predictions, outputs.class_embeddings, outputs.temperature, outputs.voxels_3d, outputs.binary_logits]


def test_matches_recorded_losses_matches_and_gradients() -> None:
    report = run_case(GOLDEN / "f_criterion")
    assert report.passed, "\n".join(report.lines())
    names = {item.name for item in report.comparisons}
    assert {"plain/total", "contra/total", "plain/match_aux1_b1", "contra/grad_pred3d_rownorm"} <= names
    assert len(names) > 80


def test_names_weights_and_total() -> None:
    batch = random_batch()
    losses = compute(batch, random_outputs(batch), regularise=False)
    assert set(losses) == NAMES
    assert set(compute(batch, random_outputs(batch))) == NAMES | {"mask_regularisation"}
    torch.testing.assert_close(losses["total"], sum(value for name, value in losses.items() if name != "total"))
    double = compute(batch, random_outputs(batch), regularise=False, binary=32.0, dice=10.0, point_3d=0.0)
    torch.testing.assert_close(double["binary"], 2 * losses["binary"])
    assert double["point_3d"] == 0
    single = compute(batch, random_outputs(batch, predictions=1))
    assert not any(name.endswith("_aux") for name in single)


def test_the_generator_decides_the_points() -> None:
    batch = random_batch()
    first, again, other = (compute(batch, random_outputs(batch), seed=seed) for seed in (3, 3, 4))
    assert all(torch.equal(first[name], again[name]) for name in first)
    assert first["mask"] != other["mask"] and first["point_3d"] == other["point_3d"]


def test_losses_of_half_precision_outputs_are_float32() -> None:
    batch = random_batch()
    with torch.autocast("cpu", torch.bfloat16):
        losses = compute(batch, random_outputs(batch, dtype=torch.bfloat16))
    exact = compute(batch, random_outputs(batch, dtype=torch.float64))
    for name, value in losses.items():
        assert value.dtype == torch.float32
        assert value.item() == pytest.approx(exact[name].item(), rel=0.05, abs=0.05)


@pytest.mark.parametrize("supervision", ["reference", "none"])
@pytest.mark.parametrize("case", ["all ignored", "no novel", "one target", "one view", "nothing covered", "no caption"])
def test_edge_cases_stay_finite(case: str, supervision: str) -> None:
    batch = random_batch((40,) if case == "one view" else (40, 30))
    outputs = random_outputs(batch)
    assert batch.labels is not None and batch.label_maps is not None
    if case == "all ignored":
        batch.labels = torch.full_like(batch.labels, 5)
        batch.binary_labels = torch.full_like(batch.labels, -1)
        batch.label_maps = torch.full_like(batch.label_maps, 5)
    elif case == "no novel":
        batch.labels = batch.labels.clamp(max=4)
        batch.binary_labels = torch.ones_like(batch.labels)
    elif case == "one target":
        batch.label_maps = torch.full_like(batch.label_maps, 2)
    elif case == "nothing covered":
        for prediction in outputs.masks:
            prediction.mask_logits.data.fill_(-4)
    elif case == "no caption":
        batch.captions = ["", ""]
    losses = compute(batch, outputs, novel_supervision=supervision)
    gradients = torch.autograd.grad(losses["total"], leaves(outputs), allow_unused=True)
    assert all(value.isfinite() for value in losses.values())
    assert all(g is None or g.isfinite().all() for g in gradients)
    if case == "all ignored":
        assert losses["point_fused"] == losses["point_3d"] == 0
        assert (losses["binary"] == 0) == (supervision == "reference")
    if case == "nothing covered":
        assert losses["caption_2d"] == 0 and torch.equal(losses["caption_fused"] / 1.5, losses["caption_3d"])
    if case == "no caption":
        assert losses["caption_2d"] == losses["caption_fused"] == losses["caption_3d"] == 0


def test_samples_without_caption_or_cover_do_not_count() -> None:
    features, captions = torch.eye(3), torch.tensor([[1.0, 0, 0], [1.0, 0, 0], [0, 0, 1.0]])
    assert float(caption_loss(features, captions, torch.tensor([True, True, True]))) == pytest.approx(1 / 3)
    assert float(caption_loss(features, captions, torch.tensor([True, False, True]))) == pytest.approx(0, abs=1e-6)
    assert float(caption_loss(features, captions, torch.tensor([False, True, False]))) == pytest.approx(1)


def test_point_cross_entropy_ignores_null() -> None:
    torch.manual_seed(0)
    logits, labels = torch.randn(5, 4), torch.tensor([0, 3, 2, 3, 1, 0])
    rows = torch.tensor([4, 0, 1, 1, 4, 2])  # points may share a row, and rows may have no point
    kept = labels != 3
    expected = F.cross_entropy(logits[rows][kept], labels[kept])
    torch.testing.assert_close(point_cross_entropy(logits, labels, rows), expected)
    assert point_cross_entropy(logits, torch.full((6,), 3), rows) == 0


def test_the_published_loss_never_ignores_every_label() -> None:
    assert never_all_ignored(torch.tensor([5, 5, 5]), 5).tolist() == [4, 5, 5]
    assert never_all_ignored(torch.tensor([5, 2, 5]), 5).tolist() == [5, 2, 5]
    assert never_all_ignored(torch.zeros(0, dtype=torch.long), 5).tolist() == []
    batch = random_batch()
    assert batch.labels is not None
    batch.labels = torch.full_like(batch.labels, 5)
    outputs = random_outputs(batch)
    outputs.fused = fuse_training(Fuser(6, FRAME), outputs, batch)
    captions = torch.randn(batch.size, 6)
    losses = {
        reference: criterion_of(num_points=8, reference=reference)(outputs, batch, captions, epoch=0)
        for reference in (False, True)
    }
    assert losses[False]["point_3d"] == 0 and losses[False]["point_fused"] == 0
    logits = cosine_logits(outputs.points_3d[:1], outputs.class_embeddings, outputs.temperature)
    torch.testing.assert_close(losses[True]["point_3d"], 4 * -logits.log_softmax(-1)[0, 4])
    assert losses[True]["point_fused"] > 0 and (batch.labels == 5).all()


def test_mean_mask_feature_equals_the_mean_over_covered_points() -> None:
    torch.manual_seed(0)
    embeddings = torch.randn(3, 4, 5)
    owner = torch.tensor([0, 0, 3, -1, 2, -1, -1])
    point_batch = torch.tensor([0, 0, 0, 0, 1, 1, 2])
    mean, covered = mean_mask_feature(embeddings, owner, point_batch)
    assert covered.tolist() == [True, True, False]
    torch.testing.assert_close(mean[0], (2 * embeddings[0, 0] + embeddings[0, 3]) / 3)
    torch.testing.assert_close(mean[1:], torch.stack([embeddings[1, 2], torch.zeros(5)]))
    features, rows = torch.randn(5, 5), torch.tensor([0, 1, 2, 1, 3, 4, 4])
    means = mean_per_sample(features, point_batch, 4, rows)
    torch.testing.assert_close(means[0], features[[0, 1, 1, 2]].mean(0))
    torch.testing.assert_close(means[1], features[3:].mean(0))
    assert torch.equal(means[3], torch.zeros(5))


def test_binary_loss_skips_unknown_points() -> None:
    logits, targets = torch.tensor([2.0, -1.0, 3.0, 0.5]), torch.tensor([1, 0, -1, 1])
    known = torch.tensor([0, 1, 3])
    expected = F.binary_cross_entropy_with_logits(logits[known], targets[known].float(), pos_weight=torch.tensor(0.25))
    torch.testing.assert_close(binary_loss(logits, targets, 0.25), expected)
    assert binary_loss(logits, torch.full((4,), -1), 0.25) == 0


def test_unlabelled_points_train_the_binary_head_without_novel_labels() -> None:
    batch = random_batch()
    targets = binary_targets(batch, 5, "none")
    assert batch.labels is not None and batch.binary_labels is not None
    assert torch.equal(targets, (batch.labels < 5).long())
    # No label of a novel class is read.
    batch.binary_labels = batch.binary_labels[torch.randperm(70)]
    assert torch.equal(binary_targets(batch, 5, "none"), targets)
    torch.manual_seed(0)
    logits = torch.randn(70)
    torch.testing.assert_close(binary_loss_unlabelled(logits, targets, 0.3, 0.0), binary_loss(logits, targets, 0.3))


def test_share_of_base_points_among_the_unlabelled_is_discounted() -> None:
    """Half of the unlabelled points are base: told so, the loss is least at the truth, untold at half-heartedness."""
    targets = torch.tensor([1] * 100 + [0] * 100)
    is_base = torch.tensor([1.0] * 150 + [0.0] * 50)

    def loss(confidence: float, share: float) -> float:
        return float(binary_loss_unlabelled((2 * is_base - 1) * confidence, targets, 1.0, share))

    told = [loss(confidence, 0.5) for confidence in (0.5, 2.0, 6.0)]
    untold = [loss(confidence, 0.0) for confidence in (0.5, 2.0, 6.0)]
    assert told == sorted(told, reverse=True)
    assert untold[2] > untold[0]
    assert loss(9.0, 0.9) >= 0


def test_masks_are_chosen_by_their_points_and_confidence() -> None:
    """Two views; in the first: clearly novel, mixed, clearly base, base with too few points."""
    inside = torch.zeros(500, 4, dtype=torch.bool)
    targets = torch.ones(500, dtype=torch.int64)
    point_batch = (torch.arange(500) >= 400).long()
    targets[:40] = 0
    inside[:45, 0] = True  # 40 novel, 5 others
    inside[20:60, 1] = True  # 20 and 20
    inside[200:380, 2] = True  # 180 base
    inside[100:200, 3] = True  # 100 base

    def choose(confidence: Tensor) -> tuple[Tensor, Tensor]:
        return choose_masks(*eligible_masks(inside, targets, point_batch, 2), confidence)

    chosen, valid = choose(torch.tensor([[0.6, 0.9, 0.7, 0.9], [0.9] * 4]))
    assert [(q, v) for q, v in zip(chosen[0].tolist(), valid[0].tolist(), strict=True) if v] == [(0, True), (2, True)]
    assert not valid[1].any()
    targets[200:208] = -1  # 172 against 8 others: exceeds 20 times
    assert choose(torch.full((2, 4), 0.9))[1][0, -1]
    targets[208:210] = -1  # 170 against 10: does not
    assert not choose(torch.full((2, 4), 0.9))[1][0, -1]


def test_the_four_most_confident_novel_masks_are_chosen() -> None:
    inside, targets = torch.ones(20, 6, dtype=torch.bool), torch.zeros(20, dtype=torch.int64)
    confidence = torch.tensor([[0.6, 0.9, 0.55, 0.8, 0.7, 0.95]])
    eligible = eligible_masks(inside, targets, torch.zeros(20, dtype=torch.int64), 1)
    chosen, valid = choose_masks(*eligible, confidence)
    assert chosen[0, :4].tolist() == [5, 1, 3, 4] and valid[0].tolist() == [True] * 4 + [False]


def test_a_view_without_masks_counts_as_one_mask() -> None:
    point_logits = torch.full((25, 3), -1.0)
    point_logits[:9, 1] = 1  # nine points are too few
    point_logits[15:, 2] = 1
    point_batch = torch.tensor([0] * 15 + [1] * 10)
    inside = covered_points(point_logits, point_batch, 2)
    assert inside[:15].tolist() == [[True, False, False]] * 15
    assert inside[15:].tolist() == [[False, False, True]] * 10


def test_confidence_is_the_mean_probability_inside() -> None:
    logits = torch.full((2, 3, 4, 4), -2.0)
    logits[0, 1, :2] = 3.0
    everything = torch.ones(2, 3, dtype=torch.bool)
    confidence = mask_confidence(logits, (4, 4), everything)
    assert not mask_confidence(logits, (4, 4), ~everything).any()
    assert float(confidence[0, 1]) == pytest.approx(float(torch.tensor(3.0).sigmoid()))
    assert confidence.count_nonzero() == 1


def test_regularisation_pulls_the_mean_of_a_mask() -> None:
    torch.manual_seed(0)
    points, clip = torch.randn(30, 4, requires_grad=True), torch.randn(1, 2, 4)
    voxel_of = torch.arange(30)
    point_logits = torch.full((30, 2), -1.0)
    point_logits[:12, 1] = 1
    mask_logits = point_logits.new_ones(1, 2, 4, 4)
    targets, point_batch = torch.zeros(30, dtype=torch.int64), torch.zeros(30, dtype=torch.int64)
    loss = mask_regularisation(points, voxel_of, clip, mask_logits, point_logits, targets, point_batch, FRAME)
    expected = 1 - F.cosine_similarity(points[:12].mean(0), clip[0, 1], dim=0)
    torch.testing.assert_close(loss, expected)
    loss.backward()
    assert torch.equal(points.grad.ne(0).any(1), torch.arange(30) < 12)
    none = mask_regularisation(points, voxel_of, clip, mask_logits, point_logits, targets - 1, point_batch, FRAME)
    assert none == 0


def test_targets_are_counted_over_processes(monkeypatch: pytest.MonkeyPatch) -> None:
    class Exchange:
        """What an exchange gives that ends when it is waited for."""

        def __init__(self, total: Tensor) -> None:
            self.total = total

        def wait(self) -> None:
            self.total.add_(10)

    started = []
    monkeypatch.setattr("torch.distributed.is_initialized", lambda: True)
    monkeypatch.setattr("torch.distributed.get_world_size", lambda: 2)
    monkeypatch.setattr(
        "torch.distributed.all_reduce", lambda total, async_op: started.append(async_op) or Exchange(total)
    )
    maps = torch.tensor([[[0, 1], [1, 1]], [[2, 0], [5, 5]]])  # two targets and three
    targets = TargetCount(maps, 6)
    assert started == [True]
    assert float(targets.mean()) == (5 + 10) / 2


def test_mask_losses_are_divided_by_the_targets_of_all_processes() -> None:
    batch = random_batch()
    criterion = criterion_of(num_points=50)
    outputs, captions = random_outputs(batch), torch.zeros(batch.size, 6)
    parts = criterion.losses[:3]
    assert [part.name for part in parts] == ["mask_class", "mask", "dice"]

    def uniform(shape: tuple[int, ...]) -> Tensor:
        return torch.rand(shape, generator=torch.Generator().manual_seed(1))

    step = criterion.make_step(outputs, batch, captions, uniform=uniform)
    alone = [part.compute(step) for part in parts]
    targets = criterion.count_targets(batch)
    count = float(targets.mean())
    assert count == sum(len(labels.unique()) for labels in batch.label_maps)
    targets._sum *= 3
    step = criterion.make_step(outputs, batch, captions, uniform=uniform, targets=targets)
    shared = [part.compute(step) for part in parts]
    torch.testing.assert_close(shared[0], alone[0])
    for mine, theirs in zip(alone[1:], shared[1:], strict=True):
        torch.testing.assert_close(theirs, mine / 3)


def test_losses_without_masks_are_those_of_a_whole_step() -> None:
    batch = random_batch()
    whole = compute(batch, random_outputs(batch), regularise=False)
    criterion = criterion_of(num_points=50)
    captions = torch.randn(batch.size, 6, generator=torch.Generator().manual_seed(9))
    outputs = dataclasses.replace(random_outputs(batch), masks=[], class_logits=[])
    losses = criterion(outputs, batch, captions, epoch=0)
    assert set(losses) == {"point_3d", "caption_3d", "binary", "total"}
    for name in losses.keys() - {"total"}:
        assert torch.equal(losses[name], whole[name])
    torch.testing.assert_close(losses["total"], whole["point_3d"] + whole["caption_3d"] + whole["binary"])


@pytest.mark.parametrize("name", ["mask_class", "mask", "dice", "point_fused", "caption_fused", "caption_2d",
                                  "mask_regularisation"])  # fmt: skip
def test_which_losses_read_masks(name: str) -> None:
    none = dict.fromkeys(("mask_class", "mask", "dice", "point_fused", "caption_fused", "caption_2d",
                          "mask_regularisation"), 0.0)  # fmt: skip
    assert not criterion_of(**none).needs("masks")
    assert criterion_of(**(none | {name: 0.1})).needs("masks")


def test_what_losses_need_decides_what_runs() -> None:
    usual = criterion_of()
    assert usual.needs("clip") and not usual.needs("clip", REGULARISED - 1) and usual.needs("clip", REGULARISED)
    assert not criterion_of(mask_regularisation=0.0).needs("clip")
    assert usual.needs("captions") and not criterion_of(caption_fused=0.0, caption_3d=0.0, caption_2d=0.0).needs(
        "captions"
    )
    assert list(dict.fromkeys(usual.groups.values())) == ["masks", "points", "captions", "binary", "regularisation"]
    assert usual.groups["dice_aux"] == "masks" and usual.groups["point_3d"] == "points"


class Largest(Loss):
    """Largest feature of a voxel."""

    name, group, needs = "largest", "own", frozenset({"random"})

    def __init__(self, weight: float) -> None:
        self.weight = weight

    def compute(self, step: LossStep) -> Tensor:
        step.uniform((3,))
        return step.voxels.amax()


def test_a_loss_by_dotted_path_is_added_and_changes_no_other() -> None:
    batch = random_batch()
    plain = compute(batch, random_outputs(batch))
    outputs = random_outputs(batch)
    losses = compute(batch, outputs, extra={f"{__name__}.Largest": 0.5})
    assert list(losses)[-2:] == ["largest", "total"] and losses.keys() - {"largest"} == plain.keys()
    assert losses["largest"] == 0.5 * outputs.voxels_3d.max()
    assert all(torch.equal(losses[name], plain[name]) for name in plain if name != "total")
    torch.testing.assert_close(losses["total"], plain["total"] + losses["largest"])
    assert criterion_of(extra={f"{__name__}.Largest": 0.5}).groups["largest"] == "own"


def test_names_of_losses_are_told_apart() -> None:
    losses = [PointLoss("point_3d", 1.0, "3d"), PointLoss("point_3d", 1.0, "fused")]
    with pytest.raises(UserError, match="two losses are called point_3d"):
        Criterion(losses, num_classes=5, frame_size=FRAME)


def test_regularising_needs_clip() -> None:
    batch = random_batch()
    outputs = dataclasses.replace(random_outputs(batch), clip_embeddings=None)
    with pytest.raises(AssertionError, match="CLIP's view"):
        compute(batch, outputs)


def test_points_of_one_voxel_share_work_and_change_nothing() -> None:
    """The same losses and gradients as when every point has a row of its own."""
    batch = random_batch((60, 50))
    outputs = random_outputs(batch, dtype=torch.float64)
    voxel_of = torch.cat([torch.arange(60) // 4, 15 + torch.arange(50) // 3])
    shared = dataclasses.replace(
        outputs, voxels_3d=outputs.voxels_3d[:32].detach().requires_grad_(), point_to_voxel=voxel_of
    )
    alone = dataclasses.replace(
        outputs,
        voxels_3d=shared.voxels_3d.detach()[voxel_of].requires_grad_(),
        point_to_voxel=torch.arange(len(voxel_of)),
    )
    assert len(fuse_training(Fuser(6, FRAME).double(), shared, batch).rows) < 110
    results = []
    for given in (shared, alone):
        losses = compute(batch, given)
        wanted = [given.voxels_3d, given.masks[0].embeddings, given.temperature]
        gradients = torch.autograd.grad(losses["total"], wanted, retain_graph=True)
        results.append((losses, gradients))
    (losses, gradients), (expected, expected_gradients) = results
    for name, value in losses.items():
        torch.testing.assert_close(value, expected[name])
    summed = torch.zeros_like(gradients[0]).index_add_(0, voxel_of, expected_gradients[0])
    torch.testing.assert_close(gradients, (summed, *expected_gradients[1:]))
