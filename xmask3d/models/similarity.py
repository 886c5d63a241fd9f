"""Classifier shared by all parts: temperature times cosine similarity (paper Eq. 1)."""

import torch
import torch.nn.functional as F
from torch import Tensor


def cosine_logits(features: Tensor, embeddings: Tensor, temperature: Tensor | float) -> Tensor:
    """Multiply the temperature by the cosine of every feature with every embedding.

    Args:
        features: ... x D. embeddings: n x D. Neither need be normalised.

    Returns:
        ... x n.
    """
    # Dividing n numbers by the norm, not D, saves a pass over the features.
    norm = torch.linalg.vector_norm(features, dim=-1, keepdim=True).clamp(min=1e-12)
    return features @ F.normalize(embeddings, dim=-1).T * (temperature / norm)


def at_least_float32(values: Tensor) -> Tensor:
    """Widen half precision, integers and booleans to float32; keep float64."""
    return values if values.is_floating_point() and values.itemsize >= 4 else values.float()
