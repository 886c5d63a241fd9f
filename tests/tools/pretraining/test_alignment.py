import numpy as np
import torch

from tools.pretraining.alignment import AlignmentHeads, Teachers
from tools.pretraining.dataset import Pool


def small_pool() -> Pool:
    regions = np.full((1, 192, 192), 255, np.uint8)
    regions[0, :96] = 0
    regions[0, 96:, 96:] = 1
    concepts = np.full((1, 16), -1, np.int16)
    return Pool(np.zeros((1, 192, 192, 3), np.uint8), regions, concepts, [[]], [[]])


def test_each_place_gets_what_is_said_of_its_region() -> None:
    regions = torch.zeros(1, 16, 2)
    regions[0, 0], regions[0, 1] = torch.tensor([1.0, 2.0]), torch.tensor([3.0, 4.0])
    teacher = torch.arange(4.0).view(1, 1, 2, 2)
    targets, weight = Teachers(small_pool(), regions, teacher).paint(torch.tensor([0]), 4)
    assert targets.shape == (1, 3, 4, 4)
    assert targets[0, :2, 0, 0].tolist() == [1, 2] and targets[0, :2, 3, 3].tolist() == [3, 4]
    assert targets[0, :2, 3, 0].tolist() == [0, 0]
    assert weight[0, 0].tolist() == [[1] * 4, [1] * 4, [0, 0, 1, 1], [0, 0, 1, 1]]
    assert targets[0, 2, 0, 0] == 0 and targets[0, 2, 3, 3] == 3


def test_the_distance_counts_regions_only_where_they_are() -> None:
    heads = AlignmentHeads([3], (2, 1))
    with torch.no_grad():
        heads.heads[0].weight.copy_(torch.eye(3)[..., None, None])
        heads.heads[0].bias.zero_()
    targets = torch.tensor([1.0, 0.0, 5.0]).view(1, 3, 1, 1).repeat(1, 1, 2, 2)
    weight = torch.tensor([[[[1.0, 0.0], [0.0, 0.0]]]])
    same = targets.clone()
    assert heads([same], targets, weight)[0].item() < 1e-6
    # Wrong where no region is: only the ImageNet part, a quarter of one minus the cosine, may notice.
    elsewhere = targets.clone()
    elsewhere[..., 1, 1] = torch.tensor([[0.0, 1.0, -5.0]])
    torch.testing.assert_close(heads([elsewhere], targets, weight)[0], torch.tensor(0.25 * 2 / 4))
    turned = targets.clone()
    turned[..., 0, 0] = torch.tensor([[0.0, 1.0, 5.0]])
    torch.testing.assert_close(heads([turned], targets, weight)[0], torch.tensor(1.0))


def test_coarser_maps_are_compared_with_averaged_targets() -> None:
    heads = AlignmentHeads([2], (1, 1))
    with torch.no_grad():
        heads.heads[0].weight.copy_(torch.eye(2)[..., None, None])
        heads.heads[0].bias.zero_()
    targets = torch.ones(1, 2, 4, 4)
    targets[:, 0, :2] = -3  # on average -1
    torch.testing.assert_close(heads([torch.ones(1, 2, 1, 1)], targets, torch.ones(1, 1, 4, 4))[0], torch.tensor(2.0))
