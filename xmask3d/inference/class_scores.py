"""From outputs of views to labels of a scene: scores, gate, votes, fill (paper section 3.5, Eq. 15-16)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from xmask3d.data.batch import Batch
from xmask3d.geometry.nearest import nearest
from xmask3d.models.fusion import sum_per_sample
from xmask3d.models.outputs import Fused, Outputs, gather_by_owner
from xmask3d.models.similarity import at_least_float32, cosine_logits

Gating = Literal["hard", "soft", "none"]

WHOLE_VOTE = 1 << 14  # of a probability of 1; whole numbers add up to the same in any order
POINTS_AT_ONCE = 1 << 12  # whose votes are compared


@dataclass
class ViewLabels:
    """Predicted class of each of the N points of a batch of views, once per feature type (fused, 2D, 3D).

    Attributes:
        fused: N int64, of the fused feature and CLIP's embedding of the point's mask.
        features_2d: N int64, of the mask embedding; where no mask owns the point, of the nearest point of the view that
            has one; -1 in a view without any.
        features_3d: N int64, of the 3D feature.
        scores: N x K log scores that `fused` is the largest of; impossible classes have the least finite number.
        scores_2d, scores_3d: scores of the other two, where they were asked for.
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
        outputs: of a forward with the K texts, CLIP's mask embeddings, and `gateable_classes` as novel classes.
        text: K x D. novel: K bool, true for novel classes. If all or none are, nothing is gated.
        base_ratio, novel_ratio: exponent of the model's probability for base and novel classes; CLIP's has the rest.
        gating: how the binary head decides between base and novel classes: "hard" by its threshold of one half, as
            published; "soft" by `soft_gate`, with `base_probability` for what masks own; "none" not at all.
        all_scores: return the scores of 2D and 3D features too.
    """
    fused, gateable = outputs.fused, gateable_classes(novel, gating)
    assert fused is not None, "labels need a forward with masks"
    with torch.autocast(batch.pixels.device.type, enabled=False):
        temperature, text = at_least_float32(outputs.temperature), at_least_float32(text)
        own = at_least_float32(outputs.binary_logits).sigmoid()
        shared = base_probability(own, fused, len(outputs.mask_logits)) if gating == "soft" else own

        def gate_scores(scores: Tensor, probability: Tensor) -> Tensor:
            if gating == "soft":
                return soft_gate(scores, probability, gateable)
            return gate(scores, allowed_classes(probability, gateable))

        ratios = torch.where(novel, novel_ratio, base_ratio).to(text.dtype)
        # What points of one voxel and one mask share is computed once.
        rows = fused.row_to_point
        scores = gate_scores(ensemble_scores(fused, outputs, text, temperature, ratios), shared[rows])

        def similarity(features: Tensor) -> Tensor:
            return cosine_logits(at_least_float32(features).to(text.dtype), text, temperature)

        scores_3d = gate_scores(similarity(outputs.voxels_3d)[outputs.point_to_voxel[rows]], own[rows])
        # Labels of 2D features are per mask before the gate, so neighbours are copied by mask, not by feature.
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
    """Log of the geometric mean of the model's and CLIP's class probabilities of the fused rows (paper Eq. 15).

    Points that no mask owns have the model's probability alone. All in logs, so that a probability too small for its
    format is a very low score, not NaN, and scores of covered and uncovered points can be compared and averaged.

    Args:
        text: K x D. ratios: K, exponent of the model's probability; CLIP's has the rest.

    Returns:
        U x K, of the rows of `fused`.
    """
    assert outputs.clip_embeddings is not None, "labels need a forward with mask_clip"
    owner, view = fused.owner[fused.row_to_point], fused.point_batch[fused.row_to_point]
    model = cosine_logits(at_least_float32(fused.rows).to(text.dtype), text, temperature).log_softmax(-1)
    clip = cosine_logits(at_least_float32(outputs.clip_embeddings).to(text.dtype), text, temperature).log_softmax(-1)
    mixed = ratios * model + (1 - ratios) * gather_by_owner(clip, owner, view)
    return torch.where((owner >= 0)[:, None], mixed, model)


def gateable_classes(novel: Tensor, gating: Gating) -> Tensor:
    """Select the classes, K bool, that the binary head gates as novel: none of them without gating."""
    return torch.zeros_like(novel) if gating == "none" else novel


def allowed_classes(probability: Tensor, novel: Tensor) -> Tensor:
    """Classes that the hard gate leaves to each point: base classes to base points, novel ones to the others.

    Args:
        probability: N, of being base. novel: K bool; if all or none are, nothing is gated.

    Returns:
        N x K bool.
    """
    is_base = probability > 0.5
    gateable = novel.any() & ~novel.all()
    return (novel != is_base[:, None]) | ~gateable


def gate(scores: Tensor, allowed: Tensor) -> Tensor:
    """Put the scores that are not allowed below all others."""
    return scores.masked_fill(~allowed, torch.finfo(scores.dtype).min)


def base_probability(own: Tensor, fused: Fused, size: int) -> Tensor:
    """What points and the masks that own them say of being base, in equal parts: a thing is wholly base or novel.

    Args:
        own: N, the binary head's probability of each point. size: B, number of views.

    Returns:
        N; a point that no mask owns has its own alone.
    """
    members = F.one_hot(fused.owner.clamp(min=0), fused.embeddings.shape[1]) * fused.covered[:, None]
    counts = sum_per_sample(members, fused.point_batch, size)
    means = sum_per_sample(members * own[:, None], fused.point_batch, size) / counts.clamp(min=1)
    of_mask = means[fused.point_batch, fused.owner.clamp(min=0)].to(own.dtype)
    return torch.where(fused.covered, (own + of_mask) / 2, own)


def soft_gate(scores: Tensor, probability: Tensor, novel: Tensor) -> Tensor:
    """Log probabilities that weigh base classes against novel ones by the binary head (paper Eq. 16).

    Base classes share the probability of being base as their scores say, novel classes the rest. So a doubtful gate
    leaves the choice to the class that stands out among its own kind.

    Args:
        scores: N x K log scores. probability: N, of being base. novel: K bool; if all or none are, nothing is gated.
    """
    if bool(novel.all()) or not bool(novel.any()):
        return scores
    lowest = torch.finfo(scores.dtype).min
    among_base = scores.masked_fill(novel, lowest).log_softmax(-1)
    among_novel = scores.masked_fill(~novel, lowest).log_softmax(-1)
    tiny = torch.finfo(probability.dtype).tiny
    base, rest = probability.clamp(min=tiny).log()[:, None], (1 - probability).clamp(min=tiny).log()[:, None]
    return torch.where(novel, among_novel + rest, among_base + base)


def fill_owners(owner: Tensor, points: Tensor, point_batch: Tensor) -> Tensor:
    """Let points that no mask owns follow the nearest owned point of their view.

    Args:
        owner: N int64, -1 for none. points: N x 3. point_batch: N int64, ascending.

    Returns:
        N int64; -1 only in views without any owned point.
    """
    filled, positions, views = owner.cpu().numpy().copy(), points.cpu().numpy(), point_batch.cpu().numpy()
    bounds = np.flatnonzero(np.diff(views)) + 1
    for rows in np.split(np.arange(len(views)), bounds):
        missing = filled[rows] < 0
        if missing.any() and not missing.all():
            known = rows[~missing]
            filled[rows[missing]] = filled[known[nearest(positions[known], positions[rows[missing]])]]
    return torch.from_numpy(filled).to(owner.device)


class SceneVotes:
    """Vote of a scene's views on each of its points: a label a view as published, or the probabilities of all."""

    def __init__(self, num_points: int, num_classes: int, device: torch.device | str = "cpu") -> None:
        self._votes = torch.zeros(num_points, num_classes, dtype=torch.int32, device=device)

    def add(self, point_index: Tensor, labels: Tensor) -> None:
        """Count one vote a row.

        Args:
            point_index: N int64, points of the scene; a point that several views see may be repeated.
            labels: N int64 class ids; -1 abstains.
        """
        point_index, labels = point_index.to(self._votes.device), labels.to(self._votes.device)
        cells = point_index * self._votes.shape[1] + labels.clamp(min=0)
        self._votes.view(-1).scatter_add_(0, cells, (labels >= 0).to(self._votes.dtype))

    def add_probabilities(self, point_index: Tensor, probabilities: Tensor) -> None:
        """Count what each row says of all classes, as parts of a vote; one set of votes takes either these or labels.

        Args:
            point_index: N int64, as for `add`.
            probabilities: N x K; a row of zeros abstains.
        """
        parts = (probabilities * WHOLE_VOTE).round().to(self._votes.device, self._votes.dtype)
        self._votes.index_add_(0, point_index.to(self._votes.device), parts)

    @property
    def counts(self) -> Tensor:
        """Votes, number of points x K int32; of probabilities in units of `1 / WHOLE_VOTE`."""
        return self._votes

    def result(self) -> Tensor:
        """Class id with most votes for every point, the lowest of equals; -1 where no view voted."""
        classes = self._votes.shape[1]
        lower_first = torch.arange(classes - 1, -1, -1, device=self._votes.device)
        # argmax does not promise which of equals it takes: make the lower id the larger number. Some points at a time,
        # because these numbers are twice as wide as the votes.
        labels = torch.empty(len(self._votes), dtype=torch.int64, device=self._votes.device)
        for start in range(0, len(labels), POINTS_AT_ONCE):
            votes = self._votes[start : start + POINTS_AT_ONCE]
            best = votes.long().mul_(classes).add_(lower_first).argmax(1)
            labels[start : start + POINTS_AT_ONCE] = torch.where(votes.any(1), best, -1)
        return labels


def fill_unseen(points: np.ndarray, labels: np.ndarray) -> np.ndarray:
    """Give points without label that of the nearest labelled point.

    Args:
        points: n x 3. labels: n int, -1 where unseen.

    Returns:
        n int; unchanged if all or none are labelled.
    """
    return UnseenFiller(points)(labels)


class UnseenFiller:
    """`fill_unseen` for several labels of the same points: neighbours are found once for those with the same gaps."""

    def __init__(self, points: np.ndarray) -> None:
        """`points`: n x 3."""
        self._points = points
        self._known: list[tuple[np.ndarray, np.ndarray]] = []  # gaps, and the neighbour of each

    def __call__(self, labels: np.ndarray) -> np.ndarray:
        """Labels and result as of `fill_unseen`."""
        unseen = labels < 0
        if not unseen.any() or unseen.all():
            return labels
        neighbours = next((neighbours for gaps, neighbours in self._known if np.array_equal(gaps, unseen)), None)
        if neighbours is None:
            seen = np.flatnonzero(~unseen)
            neighbours = seen[nearest(self._points[seen], self._points[unseen])]
            self._known.append((unseen, neighbours))
        filled = labels.copy()
        filled[unseen] = labels[neighbours]
        return filled
