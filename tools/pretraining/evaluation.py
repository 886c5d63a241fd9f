"""Accuracy of the small foundation models on furniture and rooms that pre-training has not seen."""

from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from tools.pretraining.dataset import Pool
from tools.pretraining.vocabulary import BENCHMARK_CLASSES
from xmask3d.data.scannet import SCANNET, ScanNetReader
from xmask3d.models.clip import ClipText, MaskClip
from xmask3d.models.diffusion import DiffusionFeatures
from xmask3d.models.loading.clip_weights import load_clip
from xmask3d.models.loading.diffusion_weights import load_diffusion
from xmask3d.splits import load_benchmark

SIDE = 192
MIN_PIXELS = 80

Views = Iterator[tuple[Tensor, np.ndarray, list[int]]]
"""An image 1 x 3 x H x W in [0, 1], its class map H x W, and the classes that are large enough in it."""


def pool_views(pool: Pool, limit: int) -> Views:
    """Return evenly spread views of a pool, as class maps of the benchmark's classes."""
    for index in np.linspace(0, len(pool) - 1, min(limit, len(pool))).astype(int):
        concepts = np.append(pool.concepts[index], -1)
        classes = concepts[np.minimum(pool.regions[index], len(concepts) - 1)].astype(np.int64)
        classes[(classes < 0) | (classes >= len(BENCHMARK_CLASSES))] = 255
        image = torch.from_numpy(pool.images[index]).permute(2, 0, 1)[None].float() / 255
        yield image, classes, _large(classes, 1.0)


def room_views(root: Path, split: str, every: int = 2) -> Views:
    """Return views of generated rooms in ScanNet's layout, squeezed to a square."""
    reader = ScanNetReader(SCANNET, root, split, load_benchmark("scannet20/B15N4"))
    for scene in reader.scene_names:
        for name in reader.view_names(scene)[::every]:
            view = reader.read_view(scene, name)
            image = torch.from_numpy(view.image.copy()).permute(2, 0, 1)[None].float() / 255
            image = F.interpolate(image, (SIDE, SIDE), mode="bilinear", align_corners=False)
            if view.label_map is not None:
                yield image, view.label_map, _large(view.label_map, view.label_map.size / SIDE**2)


@torch.no_grad()
def mask_accuracy(clip_folder: Path, views: Views, names: Sequence[str] = BENCHMARK_CLASSES) -> np.ndarray:
    """Evaluate MaskCLIP on true masks: each class in a view gets a bare name. Returns K x K counts, rows are truth."""
    clip, tokenizer = load_clip(clip_folder)
    mask_clip = MaskClip(clip)
    text = F.normalize(ClipText(clip, tokenizer)(list(names)), dim=-1)
    confusion = np.zeros((len(names), len(names)), np.int64)
    for image, classes, present in views:
        if present:
            embeddings = mask_clip(image, _logits(classes, present))[0]
            for truth, guess in zip(
                present, (F.normalize(embeddings, dim=-1) @ text.T).argmax(-1).tolist(), strict=True
            ):
                confusion[truth, guess] += 1
    return confusion


@torch.no_grad()
def centroid_accuracy(diffusion_folder: Path, reference: Views, views: Views) -> dict[str, np.ndarray]:
    """Score the nearest class centroid of features pooled under true masks, for each of the eight maps and for all.

    Args:
        reference: views that give the centroids. views: others, which are classified.

    Returns:
        Map name ("0" ... "7", "all") -> K x K counts, truth by rows.
    """
    features, prompt = load_diffusion(diffusion_folder)
    known, classes = _pooled(features, prompt, reference)
    unknown, truth = _pooled(features, prompt, views)
    count = len(BENCHMARK_CLASSES)
    members = F.one_hot(classes, count).float()
    result, total = {}, torch.zeros(len(truth), count)
    for number, (train, test) in enumerate(zip(known, unknown, strict=True)):
        mean, deviation = train.mean(0), train.std(0) + 1e-6
        centroids = members.T @ ((train - mean) / deviation) / members.sum(0).clamp(min=1)[:, None]
        similarity = F.normalize((test - mean) / deviation, dim=1) @ F.normalize(centroids, dim=1).T
        similarity[:, members.sum(0) == 0] = -1
        total += similarity
        result[str(number)] = _count(truth, similarity.argmax(1), count)
    return result | {"all": _count(truth, total.argmax(1), count)}


def class_accuracy(confusion: np.ndarray, classes: Sequence[int] | None = None) -> dict[str, float]:
    """Return the accuracy per class that occurs and their mean, over all classes or over the rows `classes`."""
    chosen = range(len(confusion)) if classes is None else classes
    table = {BENCHMARK_CLASSES[c]: float(confusion[c, c] / confusion[c].sum()) for c in chosen if confusion[c].sum()}
    return {**table, "mean": float(np.mean(list(table.values()))) if table else 0.0}


def _pooled(features: DiffusionFeatures, prompt: Tensor, views: Views) -> tuple[list[Tensor], Tensor]:
    """Return features of M masks for each map (M x C each), and their classes M."""
    rows: list[list[Tensor]] = [[] for _ in features.channels]
    classes: list[int] = []
    time = torch.zeros(1, features.time_dim)
    for image, class_map, present in views:
        if not present:
            continue
        masks = (_logits(class_map, present) > 0).float()
        for row, level in zip(rows, features(features.encode(image), prompt, time), strict=True):
            weight = F.adaptive_avg_pool2d(masks, level.shape[-2:])[0] + 1e-9
            row.append(torch.einsum("chw,qhw->qc", level[0], weight) / weight.sum((1, 2))[:, None])
        classes += present
    return [torch.cat(row) for row in rows], torch.tensor(classes)


def _logits(classes: np.ndarray, present: Sequence[int]) -> Tensor:
    return torch.from_numpy(np.stack([np.where(classes == c, 10.0, -10.0) for c in present])).float()[None]


def _large(classes: np.ndarray, scale: float) -> list[int]:
    found, counts = np.unique(classes, return_counts=True)
    return [
        int(c) for c, n in zip(found, counts, strict=True) if c < len(BENCHMARK_CLASSES) and n >= MIN_PIXELS * scale
    ]


def _count(truth: Tensor, guess: Tensor, classes: int) -> np.ndarray:
    return torch.bincount(truth * classes + guess, minlength=classes**2).view(classes, classes).numpy()
