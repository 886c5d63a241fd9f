import pytest
import torch
import torch.nn.functional as F

from xmask3d.losses.sampling import present_labels, sample_labels, sample_logits


def test_labels_at_points_equal_sampled_binary_masks() -> None:
    torch.manual_seed(0)
    label_maps = torch.randint(4, (2, 5, 7))
    points = torch.rand(3, 50, 2, dtype=torch.float64)
    points[0, 0], points[0, 1] = 0, 1
    image = torch.tensor([1, 0, 1])
    labels, weights = sample_labels(label_maps, image, points)
    for label in range(4):
        masks = (label_maps[image] == label).double()[:, None]
        expected = F.grid_sample(masks, 2 * points[:, None] - 1, align_corners=False)[:, 0, 0]
        torch.testing.assert_close(((labels == label) * weights).sum(-1), expected)


def test_nothing_is_copied_to_the_device(monkeypatch: pytest.MonkeyPatch) -> None:
    """`new_tensor` and `tensor` take numbers from the host, which waits for a GPU."""
    for owner, name in ((torch.Tensor, "new_tensor"), (torch, "tensor")):
        monkeypatch.setattr(owner, name, None)
    maps, image = torch.arange(35).view(1, 5, 7), torch.zeros(1, dtype=torch.long)
    labels, weights = sample_labels(maps, image, torch.full((1, 1, 2), 0.5))
    assert labels.flatten().tolist() == [17, 18, 24, 25]
    assert weights.flatten().tolist() == [1, 0, 0, 0]


def test_logits_at_cell_centres_are_those_of_the_cells() -> None:
    maps = torch.arange(12.0).view(1, 1, 3, 4)
    centres = torch.stack([(torch.arange(12) % 4 + 0.5) / 4, (torch.arange(12) // 4 + 0.5) / 3], -1)[None]
    torch.testing.assert_close(sample_logits(maps, centres).flatten(), torch.arange(12.0))


def test_present_labels() -> None:
    maps = torch.tensor([[[0, 2], [2, 2]], [[3, 3], [3, 3]]])
    assert present_labels(maps, 4).tolist() == [[True, False, True, False], [False, False, False, True]]
