import types
from dataclasses import replace

import numpy as np
import pytest
import torch

from tests.helpers.golden import GOLDEN
from tests.helpers.outputs import FRAME, random_batch, random_outputs
from tests.parity.compare import Case
from tests.parity.filler import fill_module
from tests.parity.inference import _batch, _outputs
from xmask3d.inference.class_scores import (
    base_probability,
    ensemble_scores,
    gateable_classes,
    label_views,
)
from xmask3d.inference.gate_weights import clip_alone
from xmask3d.inference.region_votes import clip_odds
from xmask3d.models.fusion import Fuser, fuse_inference
from xmask3d.models.gate import soft_gate
from xmask3d.models.outputs import Fused
from xmask3d.models.similarity import cosine_logits

NOVEL = torch.tensor([False, True, False, True, False])


def test_matches_recorded_labels_of_a_view() -> None:
    """The 3D features of some points only are in the reduced copy; everything else is compared at every point."""
    case = Case.load(GOLDEN / "h_inference")
    text = case.tensor("text_embed")
    novel = torch.zeros(19, dtype=torch.bool)
    novel[case.tensor("novel_category")] = True
    fuser = Fuser(768)
    fill_module(fuser, "criterion.fuser.")
    batch = _batch(case, 1)
    outputs = _outputs(case, 1, torch.cat([text, case.tensor("null_embed")]), case.tensor("logit_scale"))
    fused = outputs.fused = fuse_inference(fuser, outputs, batch, novel)
    labels = label_views(outputs, batch, text, novel, base_ratio=0.65, novel_ratio=0.35)
    given = outputs.points_3d.ne(0).any(1).numpy()
    assert given.sum() > 30
    recorded = {name: case.outputs[f"view0/label_{name}"] for name in ("fused", "2d", "3d")}
    np.testing.assert_array_equal(labels.features_2d, recorded["2d"])
    np.testing.assert_array_equal(labels.fused.numpy()[given], recorded["fused"][given])
    np.testing.assert_array_equal(labels.features_3d.numpy()[given], recorded["3d"][given])
    np.testing.assert_array_equal(fused.covered, case.outputs["view0/final_mask_3d"].any(0))
    norms = fused.points_fused.detach().norm(dim=1).numpy()
    np.testing.assert_allclose(norms[given], case.outputs["view0/fused_rownorm"][given], rtol=1e-5)


def labels_of(outputs, batch, novel=NOVEL, **options):
    gateable = gateable_classes(novel, options.get("gating", "hard"))
    fused = fuse_inference(Fuser(6, FRAME).to(outputs.points_3d.dtype), outputs, batch, gateable)
    return label_views(replace(outputs, fused=fused), batch, texts(outputs), novel, **options)


def texts(outputs):
    return outputs.class_embeddings[:-1].detach()


def test_gate_leaves_base_classes_to_base_points() -> None:
    batch = random_batch()
    outputs = random_outputs(batch)
    labels = labels_of(outputs, batch)
    is_base = outputs.binary_logits > 0
    for branch in (labels.fused, labels.features_2d, labels.features_3d):
        assert torch.equal(NOVEL[branch], ~is_base)
    ungated = labels_of(outputs, batch, novel=torch.zeros(5, dtype=torch.bool))
    assert torch.equal(
        ungated.features_3d, cosine_logits(outputs.points_3d, texts(outputs), outputs.temperature).argmax(-1)
    )


def test_points_and_their_mask_say_in_equal_parts_what_is_base() -> None:
    batch = random_batch(points=(4, 2))
    fused = replace(
        fuse_inference(Fuser(6, FRAME), random_outputs(batch), batch, NOVEL), owner=torch.tensor([1, 1, 0, -1, 1, 1])
    )
    own = torch.tensor([0.9, 0.5, 0.2, 0.3, 0.0, 0.4])
    expected = torch.tensor([0.8, 0.6, 0.2, 0.3, 0.1, 0.3])
    torch.testing.assert_close(base_probability(own, fused, 2), expected)


def test_soft_labels_follow_the_soft_gate() -> None:
    batch = random_batch()
    outputs = random_outputs(batch)
    soft, hard = labels_of(outputs, batch, gating="soft"), labels_of(outputs, batch)
    own = outputs.binary_logits.sigmoid()
    logits = cosine_logits(outputs.points_3d, texts(outputs), outputs.temperature)
    assert torch.equal(soft.features_3d, soft_gate(logits, own, NOVEL).argmax(-1))
    assert torch.equal(soft.scores.argmax(-1), soft.fused) and not torch.equal(soft.fused, hard.fused)
    assert torch.equal(labels_of(outputs, batch, gating="none").features_3d, logits.argmax(-1))


def test_ensemble_is_the_geometric_mean_inside_masks_and_the_model_outside() -> None:
    batch = random_batch()
    outputs = random_outputs(batch, dtype=torch.float64)
    ratios = torch.where(NOVEL, 0.35, 0.65).double()
    fused = fuse_inference(Fuser(6, FRAME).double(), outputs, batch, NOVEL)
    text = texts(outputs)
    scores = ensemble_scores(fused, outputs, text, outputs.temperature, ratios).exp()[fused.point_to_row]
    model = cosine_logits(fused.points_fused, text, outputs.temperature).softmax(-1)
    clip = cosine_logits(outputs.clip_embeddings, text, outputs.temperature).softmax(-1)
    clip = clip[batch.point_batch, fused.owner.clamp(min=0)]
    expected = torch.where(fused.covered[:, None], model**ratios * clip ** (1 - ratios), model)
    torch.testing.assert_close(scores, expected)
    assert fused.covered.any() and not fused.covered.all()


def test_probabilities_that_underflow_make_no_nan() -> None:
    """At temperature 100 opposite texts are 200 apart: exp(-200) is no float32 number."""
    text = torch.tensor([[1.0, 0.0], [-1.0, 0.0], [0.0, 1.0]])
    point = torch.tensor([[1.0, 0.0], [-1.0, 0.0]])
    rows, views = torch.arange(2), torch.zeros(2, dtype=torch.long)
    fused = Fused(torch.tensor([0, 0]), views, torch.ones(2, 1), -point[:1, None], point, rows, rows)
    outputs = types.SimpleNamespace(clip_embeddings=torch.tensor([[[1.0, 0.0]]]))
    temperature, ratios = torch.tensor(100.0), torch.tensor([1.0, 0.0, 0.5])
    assert cosine_logits(point, text, temperature).softmax(-1)[0, 1] == 0
    scores = ensemble_scores(fused, outputs, text, temperature, ratios)
    assert scores.isfinite().all()
    assert scores.argmax(-1).tolist() == [0, 2]


def test_views_without_any_mask_abstain_in_2d() -> None:
    batch = random_batch()
    outputs = random_outputs(batch)
    outputs.mask_logits.data[1] = -3
    labels = labels_of(outputs, batch)
    second = batch.point_batch == 1
    assert (labels.features_2d[second] == -1).all() and (labels.features_2d[~second] >= 0).all()
    assert (labels.fused >= 0).all()


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float64])
def test_outputs_of_other_precisions(dtype: torch.dtype) -> None:
    """As after a forward under autocast, or of a network in double precision."""
    batch = random_batch()
    outputs = random_outputs(batch, dtype=dtype)
    fuser = Fuser(6, FRAME).to(torch.promote_types(dtype, torch.float32))
    outputs.fused = fuse_inference(fuser, outputs, batch, NOVEL)
    labels = label_views(outputs, batch, texts(outputs), NOVEL)
    wide = random_outputs(batch, dtype=torch.float64)
    wide.fused = fuse_inference(fuser.double(), wide, batch, NOVEL)
    exact = label_views(wide, batch, texts(outputs), NOVEL)
    assert labels.scores.dtype == torch.promote_types(dtype, torch.float32)
    assert (labels.fused == exact.fused).float().mean() > 0.9


def test_clip_alone_decides_between_kinds_without_the_head() -> None:
    batch = random_batch()
    outputs = random_outputs(batch)
    torch.manual_seed(0)  # of the fuser
    first = labels_of(outputs, batch, gating="clip", all_scores=True)
    odds, covered = clip_odds(replace(outputs, fused=fuse(outputs, batch)), texts(outputs), NOVEL)
    expected = torch.sigmoid(clip_alone(2, 3).bias - odds)
    for scores in (first.scores, first.scores_3d):
        assert scores is not None
        torch.testing.assert_close(scores.exp()[:, ~NOVEL].sum(1), expected)
    assert covered.any() and not covered.all()
    torch.manual_seed(0)
    other = labels_of(replace(outputs, binary_logits=-outputs.binary_logits), batch, gating="clip")
    torch.testing.assert_close(first.scores, other.scores)


def fuse(outputs, batch):
    return fuse_inference(Fuser(6, FRAME), outputs, batch, torch.zeros_like(NOVEL))
