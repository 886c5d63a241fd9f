"""Average precision of predicted objects by the rules of ScanNet's instance benchmark.

An object is a set of points of one scene. A prediction is a mask over the points with a class and a confidence. Points
whose class is not judged are *void*. Some rules are surprising: AP is the mean over nine overlaps, 0.50 to 0.90;
objects are matched with masks in the order of the masks, not by overlap or confidence; precision gets no monotone
envelope; a false positive that lies mostly on void or on small objects is forgiven; and predictions of a class without
any object cost nothing.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np

OVERLAPS = (50, 55, 60, 65, 70, 75, 80, 85, 90, 25)
"""Intersection over union, in per cent, that a match must exceed; AP is the mean over all but the last."""

MIN_POINTS = 100
"""Smaller masks are discarded, and smaller objects need not be found."""

INSTANCES_PER_CLASS = 1000
"""A point's object id is its class id times this factor, plus the number of the object."""

_MASK_POINTS_AT_ONCE = 1 << 24
_ROWS_AT_ONCE = 1 << 16  # chunk that stays in the processor's cache


@dataclass(frozen=True)
class SceneMatches:
    """True and false positives of one scene, one row each, and counts of its objects.

    Attributes:
        kind: E int64, rank of the class in the list of judged classes.
        overlap: E int64, rank in `OVERLAPS`.
        confidence: E float64.
        correct: E bool, true for a true positive.
        objects: K int64, number of objects of each class with at least `MIN_POINTS` points.
    """

    kind: np.ndarray
    overlap: np.ndarray
    confidence: np.ndarray
    correct: np.ndarray
    objects: np.ndarray


def match_scene(
    truth: np.ndarray,
    masks: np.ndarray,
    classes: np.ndarray,
    confidences: np.ndarray,
    judged: Sequence[int],
    class_agnostic: bool = False,
) -> SceneMatches:
    """Compare the predicted masks of a scene with its objects, at every overlap.

    Args:
        truth: N object ids, class id * 1000 + number; points of other than judged classes are void.
        masks: M x N bool, in the order of the predictions, which decides at overlap 0.25.
        classes: M class ids.
        confidences: M; only their order matters.
        judged: K class ids.
        class_agnostic: put all objects and all predictions into one class, the first judged one.
    """
    ids, object_of_point, sizes = np.unique(np.asarray(truth, np.int64), return_inverse=True, return_counts=True)
    rank = {class_id: k for k, class_id in enumerate(judged)}
    kind = np.array([rank.get(int(value) // INSTANCES_PER_CLASS, -1) for value in ids], np.int64)
    predicted = np.array([rank.get(int(value), -1) for value in classes], np.int64)
    if class_agnostic:
        kind, predicted = np.minimum(kind, 0), np.zeros_like(predicted)
    points = masks.sum(1, dtype=np.int64)
    kept = (points >= MIN_POINTS) & (predicted >= 0)
    shared = _intersections(masks[kept], object_of_point.reshape(-1), len(ids))
    points, predicted, confidence = points[kept], predicted[kept], np.asarray(confidences, np.float64)[kept]
    large = sizes >= MIN_POINTS
    found: list[tuple[np.ndarray, ...]] = []
    for k in np.unique(predicted):
        own, same = predicted == k, kind == k
        inside = shared[own]
        union = points[own][:, None] + sizes[same] - inside[:, same]
        matches = 100 * inside[:, same] > np.array(OVERLAPS)[:, None, None] * union  # T x P x O integers
        excused = inside[:, kind < 0].sum(1) + inside[:, same & ~large].sum(1)
        forgiven = 100 * excused > np.array(OVERLAPS)[:, None] * points[own]
        found += _match_class(int(k), matches, large[same], forgiven, confidence[own])
    columns = [np.concatenate(column) for column in zip(*found, strict=True)] if found else [np.empty(0)] * 4
    return SceneMatches(
        kind=columns[0].astype(np.int64),
        overlap=columns[1].astype(np.int64),
        confidence=columns[2].astype(np.float64),
        correct=columns[3].astype(bool),
        objects=np.bincount(kind[large & (kind >= 0)], minlength=len(judged)),
    )


def count_merged_and_split(truth: np.ndarray, masks: np.ndarray, judged: Sequence[int]) -> tuple[int, int]:
    """Count the masks that merge objects, and the objects that masks split, whatever their classes.

    Args:
        truth, judged: see `match_scene`; objects need at least `MIN_POINTS` points.
        masks: M x N bool, without overlaps.

    Returns:
        Number of masks that contain at least half of each of several objects; and number of objects with several masks
        that lie mostly inside them and each cover at least a tenth.
    """
    ids, object_of_point, sizes = np.unique(np.asarray(truth, np.int64), return_inverse=True, return_counts=True)
    counted = np.isin(ids // INSTANCES_PER_CLASS, judged) & (sizes >= MIN_POINTS)
    shared = _intersections(masks, object_of_point.reshape(-1), len(ids))[:, counted]
    sizes, points = sizes[counted], masks.sum(1, dtype=np.int64)[:, None]
    merged = (2 * shared >= sizes).sum(1) > 1
    split = ((2 * shared > points) & (10 * shared >= sizes)).sum(0) > 1
    return int(merged.sum()), int(split.sum())


def _intersections(masks: np.ndarray, object_of_point: np.ndarray, count: int) -> np.ndarray:
    """Count the points that each of M masks shares with each of `count` objects, M x count int64."""
    shared = np.zeros((len(masks), count), np.int64)
    step = max(1, _MASK_POINTS_AT_ONCE // max(1, masks.shape[1]))
    for start in range(0, len(masks), step):
        row, point = np.nonzero(masks[start : start + step])
        rows = min(step, len(masks) - start)
        cells = np.bincount(row * count + object_of_point[point], minlength=rows * count)
        shared[start : start + rows] = cells.reshape(rows, count)
    return shared


def _match_class(
    kind: int, matches: np.ndarray, large: np.ndarray, forgiven: np.ndarray, confidence: np.ndarray
) -> list[tuple[np.ndarray, ...]]:
    """Return rows of `SceneMatches` for the P predictions and O objects of one class.

    Args:
        matches: T x P x O bool, true where the overlap is large enough; objects in rising order of their ids.
        large: O bool, objects that must be found.
        forgiven: T x P bool, predictions that lie mostly on points that are not judged.
        confidence: P.
    """
    rows: list[tuple[np.ndarray, ...]] = []

    def add(overlap: np.ndarray, values: np.ndarray, correct: bool) -> None:
        rows.append((np.full(len(overlap), kind), overlap, values, np.full(len(overlap), correct)))

    taken = np.zeros(matches.shape[:2], bool)
    for column in np.flatnonzero(large):
        candidates = matches[:, :, column] & ~taken
        overlap = np.flatnonzero(candidates.any(1))
        # the first match takes the object; later ones remain unmatched
        taken[overlap, candidates[overlap].argmax(1)] = True
        best = np.where(candidates[overlap], confidence, -np.inf).argmax(1)
        add(overlap, confidence[best], True)
        candidates[overlap, best] = False
        duplicate_overlap, duplicate = np.nonzero(candidates)
        add(duplicate_overlap, confidence[duplicate], False)
    wrong_overlap, wrong = np.nonzero(~matches.any(2) & ~forgiven)
    add(wrong_overlap, confidence[wrong], False)
    return rows


def average_precision(scenes: Sequence[SceneMatches], weights: np.ndarray | None = None) -> np.ndarray:
    """Compute areas under the precision-recall curves of the pooled scenes.

    Args:
        scenes: S scenes, all with the same list of K judged classes.
        weights: B x S integers, how often each scene counts in each of B resamples; None if each counts once.

    Returns:
        B x K x T float64 (K x T without weights); NaN for a class without objects.
    """
    times = np.ones((1, len(scenes))) if weights is None else np.asarray(weights, np.float64)
    objects = times @ np.array([scene.objects for scene in scenes])  # B x K
    areas = np.where(objects[:, :, None] > 0, np.zeros(len(OVERLAPS)), np.nan)
    scene = np.repeat(np.arange(len(scenes)), [len(matches.kind) for matches in scenes])
    kind, overlap, confidence, correct = (
        np.concatenate([getattr(matches, name) for matches in scenes])
        for name in ("kind", "overlap", "confidence", "correct")
    )
    order = np.lexsort((-confidence, overlap, kind))
    curve = (kind * len(OVERLAPS) + overlap)[order]
    starts = np.flatnonzero(np.diff(curve, prepend=-1))
    for rows in np.split(order, starts[1:]) if len(order) else []:
        k, t = kind[rows[0]], overlap[rows[0]]
        step = max(1, _ROWS_AT_ONCE // len(rows))
        for start in range(0, len(times), step):
            part = slice(start, start + step)
            area = _area(confidence[rows], correct[rows], times[part, scene[rows]], objects[part, k])
            areas[part, k, t] = np.where(objects[part, k] > 0, area, np.nan)
    return areas[0] if weights is None else areas


def _area(confidence: np.ndarray, correct: np.ndarray, times: np.ndarray, objects: np.ndarray) -> np.ndarray:
    """Apply the trapezoid rule through a point for each distinct confidence, and recall 0 with precision 1.

    Args:
        confidence: E, in falling order.
        correct: E bool.
        times: B x E, how often each row counts.
        objects: B, number of objects.
    """
    ends = np.flatnonzero(np.diff(confidence, append=-np.inf))  # rows of equal confidence are added together
    hits = np.cumsum(times * correct, 1)[:, ends]
    counted = np.cumsum(times, 1)[:, ends]
    precision = np.where(counted > 0, hits / np.maximum(counted, 1), 1.0)
    recall = hits / np.maximum(objects, 1)[:, None]
    edge = np.ones((len(times), 1))
    precision, recall = np.concatenate([edge, precision], 1), np.concatenate([0 * edge, recall], 1)
    return (np.diff(recall, axis=1) * (precision[:, 1:] + precision[:, :-1]) / 2).sum(1)


@dataclass(frozen=True)
class InstanceScores:
    """Average precision of each class, and its means over groups.

    Attributes:
        areas: K x T, see `average_precision`.
        groups: ranks of judged classes, by the name of their group.
    """

    areas: np.ndarray
    groups: Mapping[str, Sequence[int]]

    @cached_property
    def per_class(self) -> dict[str, np.ndarray]:
        """Return K values each of ap, ap50 and ap25; NaN for a class without objects."""
        columns = {"ap": self.areas[:, :-1].mean(1)}
        return columns | {f"ap{percent}": self.areas[:, OVERLAPS.index(percent)] for percent in (50, 25)}

    def mean(self, name: str, group: str | None = None) -> float:
        """Average ap, ap50 or ap25 over the classes (of a group) that have objects; NaN if none has."""
        values = self.per_class[name] if group is None else self.per_class[name][list(self.groups[group])]
        values = values[~np.isnan(values)]
        return float(values.mean()) if len(values) else float("nan")
