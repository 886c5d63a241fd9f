import numpy as np
import pytest
import torch

from xmask3d.geometry.nearest import nearest
from xmask3d.inference import fill as module
from xmask3d.inference.fill import UnseenFiller, fill_owners, fill_unseen


def test_points_in_no_mask_follow_the_nearest_of_their_view() -> None:
    owner = torch.tensor([3, -1, -1, 5, -1, -1])
    points = torch.tensor([[0.0, 0, 0], [1, 0, 0], [9, 0, 0], [10, 0, 0], [0, 0, 0], [1, 1, 1]])
    views = torch.tensor([0, 0, 0, 0, 1, 1])
    assert fill_owners(owner, points, views).tolist() == [3, 3, 5, 5, -1, -1]
    assert owner.tolist() == [3, -1, -1, 5, -1, -1]
    full = torch.tensor([1, 2])
    assert torch.equal(fill_owners(full, points[:2], views[:2]), full)


def test_unseen_points_take_the_nearest_label() -> None:
    points = np.array([[0.0, 0, 0], [1, 0, 0], [5, 0, 0], [4.9, 0, 0]])
    assert fill_unseen(points, np.array([2, -1, 0, -1])).tolist() == [2, 2, 0, 0]
    everything, nothing = np.array([1, 2, 3, 4]), np.full(4, -1)
    assert fill_unseen(points, everything).tolist() == [1, 2, 3, 4]
    assert fill_unseen(points, nothing).tolist() == [-1] * 4


def test_neighbours_are_found_once_for_labels_with_the_same_gaps(monkeypatch: pytest.MonkeyPatch) -> None:
    trees = []

    def count(points: np.ndarray, queries: np.ndarray) -> np.ndarray:
        trees.append(len(points))
        return nearest(points, queries)

    monkeypatch.setattr(module, "nearest", count)
    points = np.random.default_rng(0).random((50, 3))
    first = np.where(np.arange(50) % 3 == 0, np.arange(50), -1)
    second, third = np.where(first < 0, -1, first + 100), np.where(np.arange(50) < 5, 7, -1)
    fill = UnseenFiller(points)
    for labels in (first, second, third):
        np.testing.assert_array_equal(fill(labels), fill_unseen(points, labels))
    assert trees == [17, 17, 17, 5, 5]
