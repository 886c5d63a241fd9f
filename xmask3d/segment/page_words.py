"""Saved features and text tower, small enough to be part of a page that answers new words without a server."""

import json
import zlib
from collections.abc import Iterator
from pathlib import Path

import numpy as np

from xmask3d.models.byte_pairs import shared_pairs
from xmask3d.models.text_tower import TextTower, load_text_tower
from xmask3d.models.tokenizer import learned_words
from xmask3d.segment.saved_features import PointFeatures
from xmask3d.segment.wording import SMALL
from xmask3d.visualize.packed import pack
from xmask3d.visualize.page import PageWords
from xmask3d.weights import clip_folder

MAX_TOWER = 4_000_000
"""Largest number of weights of a text tower inside a page; published CLIP models have a hundred times as many."""
STEPS = (0.006, 0.008, 0.01, 0.011, 0.012, 0.014, 0.017, 0.02, 0.025, 0.032, 0.04, 0.064)
"""Steps of rounding; the finest that fits is used, and similarities change by little more than a step at worst."""
CHUNK = 16_384  # places whose features are in single precision at a time
SAMPLE = 8192  # places from which the compressed size is estimated
MAX_BYTES = 6_700_000
"""Largest compressed size of the features, in bytes; a page of 200 000 points then stays below 15 MB."""


def page_words(features: PointFeatures, points: np.ndarray) -> PageWords | None:
    """Pack features for a page; None if the text tower is too large, as those of published models are.

    Args:
        points: indices of the points in the page.
    """
    source = features.about.get("clip", "")
    folder = clip_folder() if source == "shipped" else Path(source)
    tower = load_text_tower(folder)
    if not isinstance(tower, TextTower) or sum(tensor.size for tensor in tower.tensors.values()) > MAX_TOWER:
        return None
    if not len(points):
        return None
    places, row = np.unique(features.row[points], return_inverse=True)
    about, learned = features.about, learned_words(folder)
    content = {
        **_packed_tower(tower),
        **_packed_features(features, places),
        **_packed_regions(features, points, places),
        "learned": None if learned is None else sorted(learned),
        "small": sorted(SMALL),
        "places": len(places),
        "base": pack(features.base[places].astype("<f2")),
        "covered": pack(features.clip[places].any(1).astype(np.uint8)),
        "views": pack(features.view_count[places].astype("<i4")),
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
    """Rotate the features of places to their principal axes and round them to bytes; small ones become zeros.

    All places in single precision would take a gigabyte, so each pass works on chunks.
    """
    mean = sum(part.sum(0, dtype=np.float64) for part in _chunks(features, places)) / len(places)
    mean = np.asarray(mean, np.float32)
    spread = sum((part - mean).T @ (part - mean) for part in _chunks(features, places))
    _, axes = np.linalg.eigh(np.asarray(spread))
    axes = np.ascontiguousarray(axes[:, ::-1].T)  # k x 2D, axes of the largest variance first
    reach = np.max([np.abs((part - mean) @ axes.T).max(0) for part in _chunks(features, places)], axis=0) / 127
    some = places[:: max(1, len(places) // SAMPLE)]
    turned = np.concatenate([axes @ (part - mean).T for part in _chunks(features, some)], 1)
    for step in STEPS:
        steps = np.maximum(step, reach).astype(np.float32)
        size = len(json.dumps(_packed(_rounded(turned, steps)))) * 3 / 4
        if size * len(places) <= MAX_BYTES * len(some):
            break
    used = reach * 127 > steps / 2
    parts = [_rounded(axes[used] @ (part - mean).T, steps[used]) for part in _chunks(features, places)]
    return {
        "coefficients": _packed(np.concatenate(parts, 1)),
        "steps": pack(steps[used].astype("<f4")),
        "basis": pack(axes[used].astype("<f4")),
        "mean": pack(mean.astype("<f4")),
    }


def _packed_regions(features: PointFeatures, points: np.ndarray, places: np.ndarray) -> dict[str, object]:
    """Pack the parts of the page's points and places, and the regions of these parts; no parts without regions."""
    if not len(features.part_regions):
        return {"parts": 0}
    both = np.concatenate([features.part[points], features.place_part[places]])
    used, part = np.unique(both, return_inverse=True)
    part = part.reshape(-1).astype("<i4")
    return {
        "parts": len(used),
        "part": pack(part[: len(points)]),
        "place_part": pack(part[len(points) :]),
        "divisions": [pack(regions[used].astype("<i4")) for regions in features.part_regions.T],
        "region_gate": features.about.get("regions") == "gate",
        "gate_weights": features.gate_weights.values[:3],
    }


def _chunks(features: PointFeatures, places: np.ndarray) -> Iterator[np.ndarray]:
    """Yield the model's and CLIP's features of places side by side, as chunks of some thousand x 2D float32.

    A place that no mask covers uses the model's features for CLIP's too, as in `PointFeatures`.
    """
    for start in range(0, len(places), CHUNK):
        rows = places[start : start + CHUNK]
        fused, clip = features.fused[rows].astype(np.float32), features.clip[rows].astype(np.float32)
        bare = ~clip.any(1)
        clip[bare] = fused[bare]
        yield np.concatenate([fused, clip], 1)


def _rounded(values: np.ndarray, steps: np.ndarray) -> np.ndarray:
    """Round k x m values to int8 multiples of k steps."""
    return np.rint(values / steps[:, None]).astype(np.int8)


def _packed(rounded: np.ndarray) -> dict[str, object]:
    return pack(rounded, zlib.Z_HUFFMAN_ONLY)
