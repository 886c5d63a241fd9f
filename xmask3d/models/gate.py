"""Gate between base and novel classes (paper section 3.5, Eq. 16), shared by masks, points and saved features.

The functions take tensors and numpy arrays, because saved features are queried without torch, which is slow to import.
"""

from typing import Any

import numpy as np


def is_gateable(novel: Any) -> Any:
    """Return True if some, but not all, of the K classes are novel, so that there is something to gate."""
    return novel.any() & ~novel.all()


def allowed_classes(is_base: Any, novel: Any) -> Any:
    """Return the classes that the hard gate allows: base classes where it decides for base, novel ones elsewhere.

    Args:
        is_base: ... bool, of points or masks.
        novel: K bool; nothing is gated if all or none are true.

    Returns:
        ... x K bool.
    """
    return (novel != is_base[..., None]) | ~is_gateable(novel)


def gate(scores: Any, allowed: Any) -> Any:
    """Set scores that are not allowed to the least finite number, below all others."""
    library = _library(scores)
    return library.where(allowed, scores, library.finfo(scores.dtype).min)


def soft_gate(scores: Any, probability: Any, novel: Any) -> Any:
    """Return log probabilities that weigh base classes against novel ones by the binary head (paper Eq. 16).

    Base classes share the probability of being base according to their scores, novel classes share the rest. An
    undecided gate thus favours the class that stands out among its own kind.

    Args:
        scores: N x K log scores. probability: N, of being base.
        novel: K bool; nothing is gated if all or none are true.
    """
    if not is_gateable(novel):
        return scores
    library, lowest = _library(scores), -float("inf")
    among_base = log_softmax(library.where(novel, lowest, scores))
    among_novel = log_softmax(library.where(novel, scores, lowest))
    tiny = library.finfo(probability.dtype).tiny
    base, rest = (library.log(part.clip(min=tiny))[:, None] for part in (probability, 1 - probability))
    return library.where(novel, among_novel + rest, among_base + base)


def log_softmax(scores: Any) -> Any:
    """Return log probabilities over the last dimension."""
    if not isinstance(scores, np.ndarray):
        return scores.log_softmax(-1)
    shifted = scores - scores.max(-1, keepdims=True)
    return shifted - np.log(np.exp(shifted).sum(-1, keepdims=True))


def _library(values: Any) -> Any:
    if isinstance(values, np.ndarray):
        return np
    import torch

    return torch
