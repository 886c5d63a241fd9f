from pathlib import Path

import pytest
import torch
import torch.nn.functional as F
from accelerate import Accelerator

from xmask3d.build import build_labeller, build_model
from xmask3d.config import load_config
from xmask3d.errors import UserError
from xmask3d.inference.class_scores import ViewLabels
from xmask3d.inference.labeller import BRANCHES, cast_votes
from xmask3d.inference.votes import SceneVotes
from xmask3d.splits import load_benchmark


def text_of(config: Path, *overrides: str) -> torch.Tensor:
    settings = load_config(config, list(overrides))
    assembly = build_model(settings)
    benchmark = load_benchmark(settings.benchmark)
    return build_labeller(settings, assembly, benchmark, Accelerator(cpu=True)).text


def test_several_prompts_of_a_class_are_averaged(tiny: Path) -> None:
    plain = text_of(tiny)
    assert plain.shape == (19, 32)
    parts = [text_of(tiny, f"evaluate.templates=['{t}']") for t in ("{}", "a photo of a {} in a room")]
    assert torch.equal(parts[0], plain) and not torch.equal(parts[1], plain)
    both = text_of(tiny, "evaluate.templates=['{}', 'a photo of a {} in a room']")
    torch.testing.assert_close(both, torch.stack([F.normalize(part, dim=-1) for part in parts]).mean(0))


def test_the_other_published_sentences(tiny: Path) -> None:
    plain, other = text_of(tiny), text_of(tiny, "evaluate.prompts=sentences")
    changed = (plain != other).any(1)
    names = load_benchmark("scannet20/B10N9").class_names
    assert not changed[names.index("curtain")] and not changed[names.index("wall")]
    assert changed[names.index("toilet")] and changed[names.index("picture")]


def test_templates_need_one_place_for_the_name(tiny: Path) -> None:
    with pytest.raises(UserError, match=r"needs one \{\}"):
        text_of(tiny, "evaluate.templates=['a photo']")


def test_views_vote_with_labels_or_probabilities() -> None:
    """One point, two views: one all but undecided, one sure; the 2D feature of the second says nothing."""
    scores = torch.tensor([[0.51, 0.49], [0.1, 0.9]]).log()
    labels = ViewLabels(torch.tensor([0, 1]), torch.tensor([0, -1]), torch.tensor([0, 1]), scores, scores, scores)
    index = torch.zeros(2, dtype=torch.int64)
    votes = {kind: {branch: SceneVotes(1, 2) for branch in BRANCHES} for kind in ("hard", "soft")}
    for kind, of_branches in votes.items():
        cast_votes(of_branches, index, labels, kind)
    assert votes["hard"]["fused"].counts.tolist() == [[1, 1]]
    assert {branch: int(found.result()) for branch, found in votes["hard"].items()} == {"fused": 0, "2d": 0, "3d": 0}
    assert {branch: int(found.result()) for branch, found in votes["soft"].items()} == {"fused": 1, "2d": 0, "3d": 1}
