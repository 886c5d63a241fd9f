from itertools import permutations

import numpy as np
import pytest
import torch
import torch.nn.functional as F

from xmask3d.losses.mask_losses import TargetCount, class_loss, mask_losses, uncertain_points
from xmask3d.losses.matcher import match, matching_cost

WEIGHTS = {"class_weight": 2.0, "mask_weight": 5.0, "dice_weight": 5.0}


def uniform(shape: tuple[int, ...]) -> torch.Tensor:
    return torch.rand(shape, generator=torch.Generator().manual_seed(sum(shape)), dtype=torch.float64)


def test_cost_follows_its_definition() -> None:
    torch.manual_seed(0)
    masks, classes = torch.randn(2, 3, 4, 6).double(), torch.randn(2, 3, 5).double()
    label_maps, points = torch.randint(5, (2, 8, 8)), uniform((2, 30, 2))
    cost = matching_cost(masks, classes, points, label_maps, (2.0, 5.0, 5.0))
    for b, q, label in ((0, 0, 0), (1, 2, 3), (0, 1, 4)):
        grid = 2 * points[b, None, None] - 1
        x = F.grid_sample(masks[None, None, b, q], grid, align_corners=False).flatten()
        t = F.grid_sample((label_maps[None, None, b] == label).double(), grid, align_corners=False).flatten()
        entropy = F.binary_cross_entropy_with_logits(x, t)
        dice = 1 - (2 * (x.sigmoid() * t).sum() + 1) / (x.sigmoid().sum() + t.sum() + 1)
        expected = 5 * entropy + 5 * dice - 2 * classes[b, q].softmax(-1)[label]
        torch.testing.assert_close(cost[b, q, label], expected)


def test_pairs_are_the_cheapest() -> None:
    torch.manual_seed(1)
    masks, classes = [torch.randn(2, 4, 6, 6).double() for _ in range(2)], [torch.randn(2, 4, 6).double()] * 2
    label_maps = torch.randint(1, 4, (2, 8, 8))
    matching = match(masks, classes, label_maps, **WEIGHTS, num_points=40, uniform=uniform)
    assert matching.query.shape == (2, 6)
    points = uniform((2, 2, 40, 2))
    for layer in range(2):
        costs = matching_cost(masks[layer], classes[layer], points[layer], label_maps, (2.0, 5.0, 5.0)).numpy()
        for b in range(2):
            rows = matching.image[layer] == b
            assert sorted(matching.label[layer, rows].tolist()) == [1, 2, 3]
            found = costs[b, matching.query[layer, rows], matching.label[layer, rows]].sum()
            best = min(costs[b, list(queries), [1, 2, 3]].sum() for queries in permutations(range(4), 3))
            assert found == pytest.approx(best)


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_diverged_predictions_are_matched_all_the_same(value: float) -> None:
    masks, classes = [torch.full((1, 3, 4, 4), value)], [torch.zeros(1, 3, 3)]
    matching = match(masks, classes, torch.zeros(1, 4, 4).long(), **WEIGHTS, num_points=8, uniform=uniform)
    assert matching.label.tolist() == [[0]]


def test_more_targets_than_queries() -> None:
    torch.manual_seed(0)
    label_maps = torch.arange(16).view(1, 4, 4)
    matching = match(
        [torch.randn(1, 3, 4, 4)], [torch.randn(1, 3, 16)], label_maps, **WEIGHTS, num_points=20,
        uniform=lambda shape: torch.rand(shape),
    )  # fmt: skip
    assert sorted(matching.query[0].tolist()) == [0, 1, 2]
    assert len(set(matching.label[0].tolist())) == 3


def test_only_null_is_one_target() -> None:
    label_maps = torch.full((1, 4, 4), 2)
    matching = match(
        [torch.randn(1, 3, 4, 4)], [torch.randn(1, 3, 3)], label_maps, **WEIGHTS, num_points=20,
        uniform=lambda shape: torch.rand(shape),
    )  # fmt: skip
    assert matching.label.tolist() == [[2]]
    assert float(TargetCount(label_maps, 3).mean()) == 1
    logits = torch.zeros(1, 3, 3)
    assert float(class_loss(logits, matching, 0, 0.1)) == pytest.approx(np.log(3))


def test_class_loss_weighs_null_less() -> None:
    torch.manual_seed(0)
    logits = torch.randn(1, 3, 3)
    matching = match(
        [torch.randn(1, 3, 4, 4)], [logits], torch.zeros(1, 4, 4).long(), **WEIGHTS, num_points=9,
        uniform=lambda shape: torch.rand(shape),
    )  # fmt: skip
    targets = [0 if q == int(matching.query[0, 0]) else 2 for q in range(3)]
    entropy = -logits[0].log_softmax(-1)[range(3), targets]
    weights = torch.tensor([1.0 if t == 0 else 0.1 for t in targets])
    torch.testing.assert_close(class_loss(logits, matching, 0, 0.1), (entropy * weights).sum() / weights.sum())


def test_uncertain_points_are_near_the_edge_of_the_mask() -> None:
    ramp = torch.linspace(-8, 8, 64).expand(1, 1, 64, 64)
    points = uncertain_points(ramp, 400, lambda shape: torch.rand(shape, generator=torch.Generator().manual_seed(3)))
    distance = (points[0, :, 0] - 0.5).abs()
    assert points.shape == (1, 400, 2)
    # 300 of 1200 candidates nearest to the middle (zeros outside the map halve logits at its edge), 100 anywhere.
    assert distance[:300].quantile(0.95) < 0.14 and distance[:300].max() < 0.26 and distance[300:].max() > 0.4


def test_perfect_masks_cost_little() -> None:
    label_maps = torch.zeros(1, 8, 8).long()
    label_maps[:, :, 4:] = 1
    inside = torch.where(label_maps == 1, 30.0, -30.0)
    masks = torch.stack([inside, -inside], 1)
    classes = torch.tensor([[[0.0, 9, 0], [9.0, 0, 0]]])
    draw = lambda shape: torch.rand(shape, generator=torch.Generator().manual_seed(0))  # noqa: E731
    matching = match([masks], [classes], label_maps, **WEIGHTS, num_points=200, uniform=draw)
    assert dict(zip(matching.query[0].tolist(), matching.label[0].tolist(), strict=True)) == {0: 1, 1: 0}
    right = mask_losses(masks, label_maps, matching, 0, 200, draw)
    wrong = mask_losses(masks.flip(1), label_maps, matching, 0, 200, draw)
    assert 4 * right[0] < wrong[0] and 4 * right[1] < wrong[1]
