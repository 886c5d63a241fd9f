"""From outputs of views to labels of a scene: scores, gate, votes, fill (paper section 3.5, Eq. 15-16)."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from scipy.spatial import cKDTree
from torch import Tensor

from xmask3d.data.scene import Batch
from xmask3d.models.fusion import Fused, Fuser, fuse_inference, gather_by_owner
from xmask3d.models.similarity import at_least_float32, cosine_logits
from xmask3d.models.xmask3d import Outputs


@dataclass
class ViewLabels:
    """Class ids of the N points of a batch of views, by the feature they were told from.

    Attributes:
        fused: N int64, of the fused feature and CLIP's embedding of the point's mask.
        features_2d: N int64, of the mask embedding; where no mask owns the point, of the nearest point of the view that
            has one; -1 in a view without any.
        features_3d: N int64, of the 3D feature.
        scores: N x K log scores that `fused` is the largest of; impossible classes have the least finite number.
    """

    fused: Tensor
    features_2d: Tensor
    features_3d: Tensor
    scores: Tensor


@torch.no_grad()
def label_views(
    fuser: Fuser,
    outputs: Outputs,
    batch: Batch,
    text: Tensor,
    novel: Tensor,
    *,
    base_ratio: float = 0.65,
    novel_ratio: float = 0.35,
    threshold: float = 0.5,
    gated: bool = True,
) -> ViewLabels:
    """Label the points of a batch of views.

    Args:
        outputs: of a forward with the K texts and CLIP's mask embeddings.
        text: K x D. novel: K bool, true for novel classes. If all or none are, nothing is gated.
        base_ratio, novel_ratio: exponent of the model's probability for base and novel classes; CLIP's has the rest.
        threshold: base probability above which a point, or a mask, is base.
        gated: whether the binary head decides between base and novel classes.
    """
    gateable = novel if gated else torch.zeros_like(novel)
    with torch.autocast(batch.pixels.device.type, enabled=False):
        fused = fuse_inference(fuser, outputs, batch, gateable, threshold)
        temperature, text = at_least_float32(outputs.temperature), at_least_float32(text)
        allowed = allowed_classes(outputs.binary_logits, gateable, threshold)
        ratios = torch.where(novel, novel_ratio, base_ratio).to(text.dtype)
        # What points of one voxel and one mask share is computed once, at the first of them.
        rows, allowed_rows = fused.row_to_point, allowed[fused.row_to_point]
        scores = gate(ensemble_scores(fused, outputs, text, temperature, ratios), allowed_rows)

        def similarity(features: Tensor) -> Tensor:
            return cosine_logits(at_least_float32(features).to(text.dtype), text, temperature)

        label_3d = gate(similarity(outputs.voxels_3d)[outputs.point_to_voxel[rows]], allowed_rows).argmax(-1)
        # Labels of 2D features are per mask before the gate, so neighbours are copied by mask, not by feature.
        owner = fill_owners(fused.owner, batch.points, batch.point_batch)
        label_2d = gate(gather_by_owner(similarity(fused.embeddings), owner, batch.point_batch), allowed).argmax(-1)
        label_2d = torch.where(owner >= 0, label_2d, -1)
        to_points = fused.point_to_row
        return ViewLabels(scores.argmax(-1)[to_points], label_2d, label_3d[to_points], scores[to_points])


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


def allowed_classes(binary_logits: Tensor, novel: Tensor, threshold: float = 0.5) -> Tensor:
    """Classes that the hard gate leaves to each point: base classes to base points, novel ones to the others.

    Args:
        binary_logits: N, positive where base. novel: K bool; if all or none are, nothing is gated.

    Returns:
        N x K bool.
    """
    is_base = at_least_float32(binary_logits).sigmoid() > threshold
    gateable = novel.any() & ~novel.all()
    return (novel != is_base[:, None]) | ~gateable


def gate(scores: Tensor, allowed: Tensor) -> Tensor:
    """Put the scores that are not allowed below all others."""
    return scores.masked_fill(~allowed, torch.finfo(scores.dtype).min)


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
            nearest = cKDTree(positions[known]).query(positions[rows[missing]])[1]
            filled[rows[missing]] = filled[known[nearest]]
    return torch.from_numpy(filled).to(owner.device)


class SceneVotes:
    """Majority vote of a scene's views on each of its points."""

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

    @property
    def counts(self) -> Tensor:
        """Votes, number of points x K."""
        return self._votes

    def result(self) -> Tensor:
        """Class id with most votes for every point, the lowest of equals; -1 where no view voted."""
        classes = self._votes.shape[1]
        # argmax does not promise which of equals it takes: make the lower id the larger number.
        ranked = self._votes.long() * classes + torch.arange(classes - 1, -1, -1, device=self._votes.device)
        return torch.where(self._votes.any(1), ranked.argmax(1), -1)


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
        nearest = next((nearest for gaps, nearest in self._known if np.array_equal(gaps, unseen)), None)
        if nearest is None:
            seen = np.flatnonzero(~unseen)
            tree = cKDTree(self._points[seen])
            nearest = seen[tree.query(self._points[unseen], workers=torch.get_num_threads())[1]]
            self._known.append((unseen, nearest))
        filled = labels.copy()
        filled[unseen] = labels[nearest]
        return filled
