import numpy as np
import pytest
import torch

from tests.helpers.golden import load_case
from xmask3d.inference.fill import fill_unseen
from xmask3d.inference.votes import SceneVotes


def test_recorded_votes_of_all_views() -> None:
    inputs, outputs = load_case("h_inference")
    for branch in ("fused", "2d", "3d"):
        votes = SceneVotes(len(inputs["scene_points"]), 19)
        for view in range(3):
            index = torch.from_numpy(inputs[f"view{view}/point_index"]).long()
            votes.add(index, torch.from_numpy(outputs[f"view{view}/label_{branch}"]))
        labels = fill_unseen(inputs["scene_points"], votes.result().numpy())
        np.testing.assert_array_equal(labels, outputs[f"scene_label_{branch}"])


def test_votes_count_every_row_and_ties_go_to_the_lowest_class() -> None:
    votes = SceneVotes(5, 4)
    votes.add(torch.tensor([0, 0, 1, 2, 2]), torch.tensor([3, 3, 2, 1, -1]))
    votes.add(torch.tensor([0, 1, 2, 4]), torch.tensor([0, 1, 1, -1]))
    assert votes.counts.sum() == 7 and votes.counts[2, 1] == 2
    assert votes.result().tolist() == [3, 1, 1, -1, -1]


def test_votes_are_compared_in_parts(monkeypatch: pytest.MonkeyPatch) -> None:
    """Of many points and classes the numbers compared take twice the memory of the votes."""
    generator = torch.Generator().manual_seed(0)
    votes = SceneVotes(50, 4)
    votes.add(torch.randint(40, (60,), generator=generator), torch.randint(4, (60,), generator=generator))
    ranked = votes.counts.long() * 4 + torch.arange(3, -1, -1)
    expected = torch.where(votes.counts.any(1), ranked.argmax(1), -1)
    monkeypatch.setattr("xmask3d.inference.votes.POINTS_AT_ONCE", 7)
    sizes = []
    argmax = torch.Tensor.argmax
    monkeypatch.setattr(torch.Tensor, "argmax", lambda self, dim: sizes.append(len(self)) or argmax(self, dim))
    assert votes.result().tolist() == expected.tolist()
    assert sizes == [7] * 7 + [1]
    assert expected.unique().tolist() == [-1, 0, 1, 2, 3]
    assert SceneVotes(0, 4).result().tolist() == []


def test_probabilities_add_up_to_the_same_in_any_order() -> None:
    """Point 0: two views doubt, the third is sure; a majority of labels would say class 1."""
    index = torch.tensor([0, 0, 0, 1, 2])
    said = torch.tensor([[0.45, 0.55, 0], [0.45, 0.55, 0], [1, 0, 0], [0.2, 0.3, 0.5], [0, 0, 0]])
    votes, turned = SceneVotes(4, 3), SceneVotes(4, 3)
    votes.add_probabilities(index, said)
    for row in reversed(range(5)):
        turned.add_probabilities(index[[row]], said[[row]])
    assert torch.equal(votes.counts, turned.counts)
    assert votes.result().tolist() == [0, 2, -1, -1]
    torch.testing.assert_close(
        votes.counts[0] / votes.counts[0].sum(), torch.tensor([1.9, 1.1, 0]) / 3, atol=1e-4, rtol=0
    )
