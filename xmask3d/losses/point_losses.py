"""Losses on points: classes, view captions, and base or novel (paper Eq. 9-11 and 13)."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor

from xmask3d.data.batch import Batch
from xmask3d.models.similarity import at_least_float32

NovelSupervision = Literal["reference", "none"]


def point_cross_entropy(logits: Tensor, labels: Tensor, rows: Tensor, balance: float = 0.0) -> Tensor:
    """Compute the mean cross entropy over the points with a base label; 0 where there is none.

    Args:
        logits: U x (C + 1), null last. labels: N int64; C (null) is ignored.
        rows: N int64, row of the logits for each point.
        balance: a point has the weight n ** -balance, where n is the number of points of its class in the batch: 0
            gives all points the same weight (paper Eq. 9), 1 all classes that occur.
    """
    counts = count_pairs(rows, labels, logits.shape)[:, :-1].to(logits.dtype)
    of_class = counts.sum(0)
    weights = of_class.clamp(min=1) ** -balance
    total = -(counts * weights * logits.log_softmax(-1)[:, :-1]).sum()
    # The points of a class that occurs weigh 1 or more together, so only a batch without labels is clamped: it gives 0.
    return total / (weights * of_class).sum().clamp(min=1)


def never_all_ignored(labels: Tensor, null: int) -> Tensor:
    """Return the labels, N int64; if all are null, the first becomes the last base class as in the published loss."""
    first = torch.arange(len(labels), device=labels.device) == 0
    return torch.where((labels == null).all() & first, null - 1, labels)


def mean_per_sample(features: Tensor, point_batch: Tensor, size: int, rows: Tensor) -> Tensor:
    """Average the features of each sample's points, size x D, 0 for a sample without points.

    Args:
        features: U x D. point_batch: N int64.
        rows: N int64, row of the features for each point.
    """
    counts = count_pairs(point_batch, rows, (size, len(features))).to(features.dtype)
    return counts @ features / counts.sum(1, keepdim=True).clamp(min=1)


def count_pairs(first: Tensor, second: Tensor, shape: Sequence[int]) -> Tensor:
    """Count how often each pair of integers occurs: two N int64 tensors to `shape` int32.

    The order of additions does not matter to integers, so this is repeatable on a GPU too.
    """
    rows, columns = shape
    counts = torch.zeros(rows * columns, dtype=torch.int32, device=first.device)
    ones = torch.ones_like(first, dtype=torch.int32)
    return counts.scatter_add_(0, first * columns + second, ones).view(rows, columns)


def mean_mask_feature(embeddings: Tensor, owner: Tensor, point_batch: Tensor) -> tuple[Tensor, Tensor]:
    """Average the 2D features of each sample's covered points, by the number of points that each mask owns.

    Args:
        embeddings: B x Q x D. owner: N int64, -1 where uncovered. point_batch: N int64.

    Returns:
        B x D, 0 for a sample without covered points; and B bool, true for samples with covered points.
    """
    size, queries = embeddings.shape[:2]
    counts = count_pairs(point_batch, owner + 1, (size, queries + 1))[:, None, 1:]
    embeddings = at_least_float32(embeddings)
    mean = (counts.to(embeddings.dtype) @ embeddings).squeeze(1) / counts.sum(-1).clamp(min=1)
    return mean, counts.sum((1, 2)) > 0


def caption_loss(features: Tensor, captions: Tensor, valid: Tensor) -> Tensor:
    """Compute 1 - cosine of a view's mean feature and its caption, averaged over the samples that have both.

    Args:
        features: B x D. captions: B x D text embeddings. valid: B bool.
    """
    distance = 1 - F.cosine_similarity(at_least_float32(features), captions.to(features.dtype), dim=-1)
    return torch.where(valid, distance, 0).sum() / valid.sum().clamp(min=1)


def binary_targets(batch: Batch, num_base: int, supervision: NovelSupervision) -> Tensor:
    """Return the binary target of each point: N int64, 1 base, 0 novel, -1 unknown.

    With "none" no label of a novel class is read: 0 then means *unlabelled*, which is either novel or never annotated.
    """
    assert batch.labels is not None and batch.binary_labels is not None
    return batch.binary_labels if supervision == "reference" else (batch.labels < num_base).long()


def binary_loss(logits: Tensor, targets: Tensor, positive_weight: float) -> Tensor:
    """Compute the cross entropy of base (1) against novel (0) over the points known to be either (paper Eq. 13).

    Args:
        logits: N. targets: N int64 in {1, 0, -1}.
        positive_weight: weight of base points.
    """
    known = targets >= 0
    weight = torch.where(targets == 1, positive_weight, 1.0).to(logits.dtype)
    loss = F.binary_cross_entropy_with_logits(logits, (targets == 1).to(logits.dtype), weight, reduction="none")
    return torch.where(known, loss, 0).sum() / known.sum().clamp(min=1)


def binary_loss_unlabelled(logits: Tensor, targets: Tensor, positive_weight: float, base_share: float) -> Tensor:
    """Compute the binary loss without labels of novel classes: learning from base and unlabelled points.

    Unlabelled points are a mixture of novel points and base points that nobody annotated. The risk of novel points is
    therefore estimated as the risk of unlabelled points minus the part that base points have in it. It is clamped at 0,
    because a negative estimate would mean overfitting to unannotated points (non-negative positive-unlabelled learning,
    Kiryo et al., arXiv 1703.00593, Eq. 6). With `base_share` 0 this is the binary loss with unlabelled points as novel.

    Args:
        logits: N. targets: N int64, 1 base, 0 unlabelled.
        positive_weight: weight of base points.
        base_share: share of base points among the unlabelled, in [0, 1).
    """
    base = targets == 1
    num_base, num_unlabelled = base.sum(), (~base).sum()
    as_base, as_novel = F.softplus(-logits), F.softplus(logits)
    base_risk = torch.where(base, as_base, 0).sum()
    novel_in_unlabelled = torch.where(base, 0, as_novel).sum() / num_unlabelled.clamp(min=1)
    novel_in_base = torch.where(base, as_novel, 0).sum() / num_base.clamp(min=1)
    novel_risk = ((novel_in_unlabelled - base_share * novel_in_base) / (1 - base_share)).clamp(min=0)
    return (positive_weight * base_risk + num_unlabelled * novel_risk) / (num_base + num_unlabelled).clamp(min=1)
