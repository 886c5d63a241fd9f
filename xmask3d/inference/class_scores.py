"""Class scores and labels of points from the outputs of views (paper section 3.5, Eq. 15)."""

from __future__ import annotations

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

from xmask3d.data.batch import Batch
from xmask3d.inference.fill import fill_owners
from xmask3d.inference.gate_weights import clip_alone
from xmask3d.inference.region_votes import clip_odds
from xmask3d.inference.settings import Gating
from xmask3d.models.fusion import sum_per_sample
from xmask3d.models.gate import allowed_classes, gate, is_gateable, soft_gate
from xmask3d.models.outputs import Fused, Outputs, gather_by_owner
from xmask3d.models.similarity import at_least_float32, cosine_logits


@dataclass
class ViewLabels:
    """Predicted class of each of the N points of a batch of views, once per feature type (fused, 2D, 3D).

    Attributes:
        fused: N int64, predicted from the fused feature and from CLIP's embedding of the point's mask.
        features_2d: N int64, predicted from the mask embedding. A point that no mask owns takes the class of the
            nearest point of its view that a mask owns; -1 if there is no such point.
        features_3d: N int64, predicted from the 3D feature.
        scores: N x K log scores; `fused` is the class with the largest. Impossible classes have the least finite
            number.
        scores_2d, scores_3d: scores behind `features_2d` and `features_3d`, if they were asked for.
    """

    fused: Tensor
    features_2d: Tensor
    features_3d: Tensor
    scores: Tensor
    scores_2d: Tensor | None = None
    scores_3d: Tensor | None = None


@torch.no_grad()
def label_views(
    outputs: Outputs,
    batch: Batch,
    text: Tensor,
    novel: Tensor,
    *,
    base_ratio: float = 0.65,
    novel_ratio: float = 0.35,
    gating: Gating = "hard",
    all_scores: bool = False,
) -> ViewLabels:
    """Label the points of a batch of views.

    Args:
        outputs: outputs for the K texts, computed with CLIP's mask embeddings and with `gateable_classes` as novel
            classes.
        text: K x D. novel: K bool, true for novel classes. If all or none are, nothing is gated.
        base_ratio, novel_ratio: exponent of the model's probability for base and novel classes; CLIP's has the rest.
        gating: how the binary head decides between base and novel classes: "hard" by its threshold of one half, as
            published; "soft" by `soft_gate`, with `base_probability` for points that masks own; "none" does not gate;
            "clip" gates softly by CLIP's odds of the point's mask and ignores the head.
        all_scores: return the scores of 2D and 3D features too.
    """
    fused = outputs.fused
    assert fused is not None, "labels need a forward with masks"
    gateable = novel if gating == "clip" else gateable_classes(novel, gating)
    with torch.autocast(batch.pixels.device.type, enabled=False):
        temperature, text = at_least_float32(outputs.temperature), at_least_float32(text)
        if gating == "clip" and is_gateable(novel):
            odds, _ = clip_odds(outputs, text, novel)
            weights = clip_alone(int(novel.sum()), int((~novel).sum()))
            own = (weights.bias + weights.clip * odds).sigmoid()
        else:
            own = at_least_float32(outputs.binary_logits).sigmoid()
        shared = base_probability(own, fused, len(outputs.mask_logits)) if gating == "soft" else own

        def gate_scores(scores: Tensor, probability: Tensor) -> Tensor:
            if gating in ("soft", "clip"):
                return soft_gate(scores, probability, gateable)
            return gate(scores, allowed_classes(probability > 0.5, gateable))

        ratios = torch.where(novel, novel_ratio, base_ratio).to(text.dtype)
        # Points of the same voxel and mask share their scores, which are computed once.
        rows = fused.row_to_point
        scores = gate_scores(ensemble_scores(fused, outputs, text, temperature, ratios), shared[rows])

        def similarity(features: Tensor) -> Tensor:
            return cosine_logits(at_least_float32(features).to(text.dtype), text, temperature)

        scores_3d = gate_scores(similarity(outputs.voxels_3d)[outputs.point_to_voxel[rows]], own[rows])
        # Before the gate, labels of 2D features are per mask, so a neighbour's mask is copied instead of its feature.
        owner = fill_owners(fused.owner, batch.points, batch.point_batch)
        mask_scores = gather_by_owner(similarity(fused.embeddings), owner, batch.point_batch)
        scores_2d = gate_scores(mask_scores, shared)
        to_points = fused.point_to_row
        return ViewLabels(
            fused=scores.argmax(-1)[to_points],
            features_2d=torch.where(owner >= 0, scores_2d.argmax(-1), -1),
            features_3d=scores_3d.argmax(-1)[to_points],
            scores=scores[to_points],
            scores_2d=scores_2d if all_scores else None,
            scores_3d=scores_3d[to_points] if all_scores else None,
        )


def ensemble_scores(fused: Fused, outputs: Outputs, text: Tensor, temperature: Tensor, ratios: Tensor) -> Tensor:
    """Return the log of the geometric mean of the model's and CLIP's class probabilities of fused rows (paper Eq. 15).

    Points that no mask owns use the model's probability alone. The computation stays in logarithms: a probability too
    small for its format becomes a very low score instead of NaN, and scores of covered and uncovered points can be
    compared and averaged.

    Args:
        text: K x D. ratios: K, exponent of the model's probability; CLIP's has the rest.

    Returns:
        U x K, one row for each row of `fused`.
    """
    assert outputs.clip_embeddings is not None, "labels need a forward with mask_clip"
    owner, view = fused.owner[fused.row_to_point], fused.point_batch[fused.row_to_point]
    model = cosine_logits(at_least_float32(fused.rows).to(text.dtype), text, temperature).log_softmax(-1)
    clip = cosine_logits(at_least_float32(outputs.clip_embeddings).to(text.dtype), text, temperature).log_softmax(-1)
    mixed = ratios * model + (1 - ratios) * gather_by_owner(clip, owner, view)
    return torch.where((owner >= 0)[:, None], mixed, model)


def gateable_classes(novel: Tensor, gating: Gating) -> Tensor:
    """Select the classes, K bool, that the binary head gates as novel; all false if it does not gate."""
    return torch.zeros_like(novel) if gating in ("none", "clip") else novel


def base_probability(own: Tensor, fused: Fused, size: int) -> Tensor:
    """Average the probability of being base of a point and of its mask, since an object is all base or all novel.

    Args:
        own: N, the binary head's probability of each point. size: B, number of views.

    Returns:
        N; a point that no mask owns keeps its own probability.
    """
    members = F.one_hot(fused.owner.clamp(min=0), fused.embeddings.shape[1]) * fused.covered[:, None]
    counts = sum_per_sample(members, fused.point_batch, size)
    means = sum_per_sample(members * own[:, None], fused.point_batch, size) / counts.clamp(min=1)
    of_mask = means[fused.point_batch, fused.owner.clamp(min=0)].to(own.dtype)
    return torch.where(fused.covered, (own + of_mask) / 2, own)
