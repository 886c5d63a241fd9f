"""Saved features and the text tower, small enough to travel inside a page that answers new words without a server."""

import json
import zlib
from pathlib import Path

import numpy as np

from xmask3d.models.byte_pairs import shared_pairs
from xmask3d.models.text_tower import TextTower, load_text_tower
from xmask3d.segment.saved_features import PointFeatures
from xmask3d.visualize.packed import pack
from xmask3d.visualize.page import PageWords
from xmask3d.weights import clip_folder

MAX_TOWER = 4_000_000
"""Numbers of a text tower that travels; published CLIP models have a hundred times as many."""
STEPS = (0.006, 0.008, 0.01, 0.011, 0.012, 0.014, 0.017, 0.02, 0.025, 0.032, 0.04, 0.064)
"""Steps of rounding; the finest that fits is taken, and keeps a similarity to nearly as much at worst."""
SAMPLE = 8192  # places by which the compressed size is foretold
MAX_BYTES = 6_700_000
"""Compressed bytes of the features; a page of 200 000 points then stays below 15 MB."""


def page_words(features: PointFeatures, points: np.ndarray) -> PageWords | None:
    """Pack features for a page; None where the text tower is too large to travel, as those of published models are.

    Args:
        points: indices of the points that the page holds.
    """
    source = features.about.get("clip", "")
    tower = load_text_tower(clip_folder() if source == "shipped" else Path(source))
    if not isinstance(tower, TextTower) or sum(tensor.size for tensor in tower.tensors.values()) > MAX_TOWER:
        return None
    if not len(points):
        return None
    places, row = np.unique(features.row[points], return_inverse=True)
    about = features.about
    content = {
        **_packed_tower(tower),
        **_packed_features(features, places),
        "places": len(places),
        "base": pack(features.base[places].astype("<f2")),
        "base_names": features.fact("base_names").split("\n"),
        **{name: float(features.numbers(name, 1)[0]) for name in ("temperature", "base_ratio", "novel_ratio")},
        "gate": about.get("gate", "hard"),
        "calibration": float(about.get("confidence_temperature", "1")),
        "templates": about.get("templates", "{}").split("\n"),
    }
    return PageWords(content, row.reshape(-1).astype(np.int32))


def _packed_tower(tower: TextTower) -> dict[str, object]:
    tokenizer = tower.tokenizer
    merges = "\n".join(f"{first} {second}" for first, second in shared_pairs().merges)
    return {
        "tensors": {name: pack(tensor.astype("<f2")) for name, tensor in tower.tensors.items()},
        "heads": tower.heads,
        "merges": pack(np.frombuffer(merges.encode("utf-8"), np.uint8)),
        "kept": tokenizer.kept,
        "vocabulary": tokenizer.vocab_size,
        "context": tokenizer.context_length,
    }


def _packed_features(features: PointFeatures, places: np.ndarray) -> dict[str, object]:
    """Rotate the features of places to their principal axes and round them to bytes: small ones become zeros.

    A place that no mask covers takes the model's features for CLIP's, which is the rule of `PointFeatures` for it.
    """
    fused, clip = features.fused[places].astype(np.float32), features.clip[places].astype(np.float32)
    bare = ~clip.any(1)
    clip[bare] = fused[bare]
    both = np.concatenate([fused, clip], 1)
    mean = both.mean(0)
    both -= mean
    _, axes = np.linalg.eigh(both.T @ both)
    axes = np.ascontiguousarray(axes[:, ::-1].T)  # k x 2D, the largest first
    turned = axes @ both.T
    reach = np.abs(turned).max(1, initial=0) / 127
    some = turned[:, :: max(1, len(places) // SAMPLE)]
    for step in STEPS:
        steps = np.maximum(step, reach).astype(np.float32)
        size = len(json.dumps(_rounded(some, steps))) * 3 / 4
        if size * len(places) <= MAX_BYTES * some.shape[1]:
            break
    used = reach * 127 > steps / 2
    return {
        "coefficients": _rounded(turned[used], steps[used]),
        "steps": pack(steps[used].astype("<f4")),
        "basis": pack(axes[used].astype("<f4")),
        "mean": pack(mean.astype("<f4")),
    }


def _rounded(values: np.ndarray, steps: np.ndarray) -> dict[str, object]:
    """Round k x m values to bytes, k steps, and pack them."""
    return pack(np.rint(values / steps[:, None]).astype(np.int8), zlib.Z_HUFFMAN_ONLY)
