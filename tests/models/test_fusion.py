import dataclasses

import pytest
import torch
import torch.nn.functional as F

from tests.helpers.outputs import FRAME, random_batch, random_outputs
from xmask3d.models.fusion import (
    Fuser,
    fuse_inference,
    fuse_training,
    gated_scores,
    gather_by_owner,
    own_pixels,
    own_points,
    sample_at_points,
    sum_per_sample,
    training_scores,
)


@pytest.mark.parametrize("frame", [(24, 32), (7, 5), (6, 8), (3, 4)])
def test_sampling_equals_resizing_then_indexing(frame: tuple[int, int]) -> None:
    torch.manual_seed(0)
    logits = torch.randn(2, 3, 6, 8, dtype=torch.float64)
    rows, columns = torch.meshgrid(torch.arange(frame[0]), torch.arange(frame[1]), indexing="ij")
    pixels = torch.stack([rows, columns], -1).view(-1, 2).repeat(2, 1)
    point_batch = torch.arange(2).repeat_interleave(frame[0] * frame[1])
    expected = F.interpolate(logits, frame, mode="bilinear", align_corners=False)
    actual = sample_at_points(logits, pixels, point_batch, frame)
    torch.testing.assert_close(actual.view(2, *frame, 3).permute(0, 3, 1, 2), expected)


def test_owner_is_the_largest_score_times_probability_that_covers() -> None:
    # Three masks, four points: clear winner; a higher score beats a higher probability; winner does not cover; no mask.
    probability = torch.tensor([[0.9, 0.6, 0.1], [0.7, 0.9, 0.1], [0.55, 0.1, 0.45], [0.1, 0.2, 0.3]])
    scores = torch.tensor([[0.9, 0.6, 0.2], [0.5, 0.5, 1.0]])
    point_batch = torch.tensor([0, 0, 1, 1])
    keep = torch.ones(2, 3, dtype=torch.bool)
    owner = own_points(probability.logit(), scores, keep, point_batch)
    assert owner.tolist() == [0, 0, -1, -1]
    keep[0, 0], keep[1, 2] = False, False
    assert own_points(probability.logit(), scores, keep, point_batch).tolist() == [1, 1, 0, -1]
    assert own_points(probability.logit(), scores, torch.zeros_like(keep), point_batch).tolist() == [-1] * 4


def test_scores_are_gated_by_base_and_novel() -> None:
    logits = torch.tensor([[[4.0, 3.0, 2.0, 0.0], [4.0, 3.0, 2.0, 0.0]]])
    novel = torch.tensor([False, True, True])
    scores = gated_scores(logits, torch.tensor([[True, False]]), novel)
    base, other = torch.tensor([4.0, 0.0]).softmax(0)[0], torch.tensor([3.0, 2.0]).softmax(0)[0]
    torch.testing.assert_close(scores, torch.stack([base, other])[None])
    # Without one of the two kinds there is nothing to choose between.
    for everything in (torch.zeros(3, dtype=torch.bool), torch.ones(3, dtype=torch.bool)):
        ungated = gated_scores(logits, torch.tensor([[True, False]]), everything)
        torch.testing.assert_close(ungated, logits.softmax(-1).amax(-1))


def test_fuser_is_one_linear_map_of_both_features() -> None:
    torch.manual_seed(0)
    fuser = Fuser(4).double()
    points, embeddings = torch.randn(5, 4).double(), torch.randn(2, 3, 4).double()
    owner, point_batch = torch.tensor([2, -1, 0, 1, -1]), torch.tensor([0, 0, 0, 1, 1])
    features_2d = gather_by_owner(embeddings, owner, point_batch)
    assert torch.equal(features_2d[[1, 4]], torch.zeros(2, 4).double())
    assert torch.equal(features_2d[3], embeddings[1, 1])
    expected = torch.where((owner >= 0)[:, None], fuser.linear(torch.cat([features_2d, points], 1)), points)
    torch.testing.assert_close(fuser(points, embeddings, owner, point_batch), expected)


def test_samples_do_not_mix() -> None:
    """A batch gives what each of its views gives alone."""
    batch = random_batch((40, 1, 30))
    outputs = random_outputs(batch, dtype=torch.float64)
    fuser = Fuser(6, FRAME).double()
    novel = torch.tensor([False, True, False, True, False])
    for fuse in (fuse_training, lambda *arguments: fuse_inference(*arguments, novel)):
        together = fuse(fuser, outputs, batch)
        for view in range(3):
            rows = batch.point_batch == view
            alone = fuse(fuser, one_view(outputs, rows, view), one_view_batch(batch, rows))
            assert torch.equal(alone.owner, together.owner[rows])
            torch.testing.assert_close(alone.points_fused, together.points_fused[rows])
            torch.testing.assert_close(alone.points_2d, together.points_2d[rows])
        assert together.covered.any() and not together.covered.all()


def one_view(outputs, rows, view):
    masks = [
        dataclasses.replace(mask, mask_logits=mask.mask_logits[[view]], embeddings=mask.embeddings[[view]])
        for mask in outputs.masks
    ]
    return dataclasses.replace(
        outputs,
        masks=masks,
        class_logits=[logits[[view]] for logits in outputs.class_logits],
        point_to_voxel=outputs.point_to_voxel[rows],
        binary_logits=outputs.binary_logits[rows],
    )


def one_view_batch(batch, rows):
    return dataclasses.replace(
        batch, pixels=batch.pixels[rows], point_batch=torch.zeros_like(batch.point_batch[rows]), views=["0"]
    )


def test_nothing_is_covered() -> None:
    batch = random_batch()
    outputs = random_outputs(batch)
    with torch.no_grad():
        outputs.mask_logits.fill_(-3)
    fuser = Fuser(6, FRAME)
    for fused in (fuse_training(fuser, outputs, batch), fuse_inference(fuser, outputs, batch, torch.arange(5) > 3)):
        assert not fused.covered.any()
        assert torch.equal(fused.points_2d, torch.zeros(70, 6))
        assert torch.equal(fused.points_fused, outputs.points_3d)


def test_the_published_training_gives_an_uncovered_view_one_point() -> None:
    batch = random_batch((3, 2, 4))
    outputs = random_outputs(batch)
    # No mask reaches the points of the first view; queries 2 and 5 own pixels elsewhere. The second view has no mask
    # at all; in the third a point is covered.
    logits = outputs.masks[0].mask_logits.detach().clone().fill_(-9)
    logits[0, [2, 5], 0, 0] = 9
    logits[2] = 9
    outputs.masks[0] = dataclasses.replace(outputs.masks[0], mask_logits=logits)
    batch.pixels = torch.tensor([FRAME]).sub(1).repeat(len(batch.pixels), 1)
    fuser = Fuser(6, FRAME)
    scores, keep = training_scores(outputs.class_logits[0])
    owners = own_pixels(logits, scores, keep, FRAME)
    first = int(owners[0][owners[0] >= 0].min())
    assert first in (2, 5) and (owners[1] == -1).all()
    plain = fuse_training(fuser, outputs, batch)
    forced = fuse_training(fuser, outputs, batch, force_first=True)
    assert plain.owner[:5].tolist() == [-1] * 5 and (plain.owner[5:] >= 0).all()
    assert forced.owner.tolist() == [first, *plain.owner[1:].tolist()]
    torch.testing.assert_close(forced.points_2d[0], outputs.mask_embeddings[0, first])
    assert not torch.equal(forced.points_fused[0], plain.points_fused[0])
    assert torch.equal(forced.points_fused[1:], plain.points_fused[1:])


def test_inference_drops_masks_without_points_and_gates_the_rest() -> None:
    """A mask with a high score, but without a point, must not keep others from owning."""
    batch = random_batch((3,))
    outputs = random_outputs(batch, queries=2)
    with torch.no_grad():
        outputs.mask_logits[0, 0], outputs.mask_logits[0, 1] = -0.01, 0.01
        outputs.class_logits[0][0, 0] = torch.tensor([9.0, 0, 0, 0, 0, 0])
        outputs.class_logits[0][0, 1] = torch.zeros(6)
    fuser, novel = Fuser(6, FRAME), torch.arange(5) > 2
    assert fuse_training(fuser, outputs, batch).owner.tolist() == [-1] * 3
    assert fuse_inference(fuser, outputs, batch, novel).owner.tolist() == [1] * 3


def test_gradients_reach_both_features_and_not_the_masks() -> None:
    batch = random_batch()
    outputs = random_outputs(batch)
    fused = fuse_training(Fuser(6, FRAME), outputs, batch)
    fused.points_fused.square().sum().backward()
    used = torch.zeros(2, 7, dtype=torch.bool)
    used[batch.point_batch[fused.covered], fused.owner[fused.covered]] = True
    assert outputs.voxels_3d.grad.ne(0).any(1).all()
    assert torch.equal(outputs.mask_embeddings.grad.ne(0).any(-1), used)
    assert outputs.mask_logits.grad is None


def test_half_precision_makes_the_same_decisions() -> None:
    batch = random_batch()
    outputs = random_outputs(batch, dtype=torch.bfloat16)
    wide = dataclasses.replace(
        outputs,
        masks=[dataclasses.replace(m, mask_logits=m.mask_logits.float()) for m in outputs.masks],
        class_logits=[logits.float() for logits in outputs.class_logits],
    )
    fuser = Fuser(6, FRAME)
    with torch.autocast("cpu", torch.bfloat16):
        narrow = fuse_training(fuser, outputs, batch)
    assert torch.equal(narrow.owner, own_points(
        sample_at_points(wide.mask_logits, batch.pixels, batch.point_batch, FRAME),
        *training_scores(wide.class_logits[0]),
        batch.point_batch,
    ))  # fmt: skip
    assert narrow.points_fused.dtype == torch.bfloat16


def test_sums_per_sample_in_float32() -> None:
    values = torch.ones(5000, 1, dtype=torch.bfloat16)
    point_batch = torch.arange(5000) % 2 * 2
    with torch.autocast("cpu", torch.bfloat16):
        assert sum_per_sample(values, point_batch.sort().values, 4).tolist() == [[2500], [0], [2500], [0]]
