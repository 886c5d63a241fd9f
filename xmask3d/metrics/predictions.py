"""Scoring of any method's predictions under every protocol, from one count of points and one matching of objects."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from xmask3d.errors import UserError
from xmask3d.metrics.instances import SceneMatches, count_merged_and_split, match_scene
from xmask3d.metrics.report import PredictionResults
from xmask3d.metrics.statistics import LEVEL, Protocol, Statistics, interval, resample
from xmask3d.splits import Benchmark


@dataclass(frozen=True)
class SceneTruth:
    """Ground truth of a scene of n points.

    Attributes:
        name: name of the scene.
        labels: n class ids, K for points that are not judged.
        objects: n object ids (class id in result files * 1000 + number), or None if objects are not known.
    """

    name: str
    labels: np.ndarray
    objects: np.ndarray | None = None


@dataclass(frozen=True)
class ScenePrediction:
    """Prediction of a method for a scene of n points.

    Attributes:
        source: file of the prediction, for messages.
        matching: "index" if prediction and truth have the same points, "nearest" if each point was compared with the
            nearest.
        labels: n class ids, -1 for points without a prediction; None if only instances are predicted.
        masks: M x n bool. classes: M class ids as in result files. confidences: M. All are None without instances.
    """

    source: str
    matching: str
    labels: np.ndarray | None = None
    masks: np.ndarray | None = None
    classes: np.ndarray | None = None
    confidences: np.ndarray | None = None


def score_predictions(
    scenes: Iterable[tuple[SceneTruth, ScenePrediction]],
    benchmark: Benchmark,
    protocol: Protocol | None = None,
    *,
    method: str = "predictions",
    about: dict[str, Any] | None = None,
    resamples: int = 1000,
    seed: int = 0,
) -> PredictionResults:
    """Score the predictions of a method, scene by scene, under every protocol that they and the truth allow.

    Args:
        scenes: truth and prediction of each scene; only one scene is in memory at a time.
        benchmark: class list and groups. Instances are judged for its group `instances`.
        protocol: choices of the protocol; `classes_per_mask` is replaced by what the masks show.
        method: name of the method in tables.
        about: further facts to keep with the results, such as the source of the predictions.
        resamples: number of resamples of the scenes with replacement, for intervals; 0 for none.
        seed: seed of the random generator that draws the resamples.

    Raises:
        UserError: there is no scene, scenes have different kinds of predictions, or labels are outside the protocol.
    """
    protocol = protocol or Protocol()
    judged = benchmark.groups.get("instances", ())
    judged_ids = [benchmark.file_ids_2d[i] for i in judged]
    names, counts, matches, several, points = [], [], [], False, 0
    matching: dict[str, int] = {}
    apart: list[tuple[int, int] | None] = []
    digest = hashlib.sha256()
    for truth, predicted in scenes:
        names.append(truth.name)
        points += len(truth.labels)
        matching[predicted.matching] = matching.get(predicted.matching, 0) + 1
        _digest_truth(digest, truth, predicted.masks is not None)
        if predicted.labels is not None:
            _check_restricted(predicted, benchmark, protocol)
            counts.append(count_points(predicted.labels, truth.labels, benchmark.num_classes))
        if predicted.masks is not None:
            matches.append(_match(truth, predicted, judged_ids, protocol.class_agnostic))
            several = several or has_several_classes(predicted)
            apart.append(_merged_and_split(truth, predicted, judged_ids))
    _check_complete(names, counts, matches)
    if matches:
        protocol = replace(protocol, classes_per_mask="several" if several else "one")
    all_matches = matches or None
    statistics = Statistics(
        names, protocol, benchmark.groups, judged, np.stack(counts) if counts else None, all_matches
    )
    values = {name: float(column[0]) for name, column in statistics.headlines().items()}
    intervals: dict[str, tuple[float, float]] = {}
    if resamples and len(names) > 1:
        drawn = statistics.headlines(resample(len(names), resamples, seed))
        intervals = {name: ends for name, column in drawn.items() if (ends := interval(column)) is not None}
    facts = {
        "matching": matching,
        "points": points,
        "truth_sha256": digest.hexdigest(),
        "bootstrap": {"resamples": resamples, "seed": seed, "per_cent": LEVEL},
    }
    counted = [pair for pair in apart if pair is not None]
    if counted and len(counted) == len(apart):
        merged, split = np.sum(counted, 0).tolist()
        facts["separation"] = {"masks_that_merge_objects": merged, "objects_that_are_split": split}
    return PredictionResults(method, benchmark, statistics, values, intervals, {**(about or {}), **facts})


def count_points(predicted: np.ndarray, truth: np.ndarray, num_classes: int) -> np.ndarray:
    """Count points by true and predicted class, K x (K + 1) int64; the last column counts invalid class ids."""
    counted = (truth >= 0) & (truth < num_classes)
    column = np.where((predicted >= 0) & (predicted < num_classes), predicted, num_classes)
    cells = truth[counted].astype(np.int64) * (num_classes + 1) + column[counted]
    return np.bincount(cells, minlength=num_classes * (num_classes + 1)).reshape(num_classes, num_classes + 1)


def has_several_classes(predicted: ScenePrediction) -> bool:
    """Return True if a mask is predicted under several classes, which raises AP and is a separate protocol (top-K)."""
    assert predicted.masks is not None and predicted.classes is not None
    seen: dict[bytes, int] = {}
    for mask, class_id in zip(predicted.masks, predicted.classes, strict=True):
        key = hashlib.blake2b(np.packbits(mask).tobytes(), digest_size=16).digest()
        if seen.setdefault(key, int(class_id)) != class_id:
            return True
    return False


def _match(truth: SceneTruth, predicted: ScenePrediction, judged: list[int], class_agnostic: bool) -> SceneMatches:
    if truth.objects is None:
        raise UserError(f"{predicted.source}: has instances, but the objects of {truth.name} are not known (--objects)")
    if not judged or 0 in judged:
        raise UserError("this class list has no group 'instances', whose classes have ids above 0; add it in dataset/")
    assert predicted.masks is not None and predicted.classes is not None and predicted.confidences is not None
    return match_scene(truth.objects, predicted.masks, predicted.classes, predicted.confidences, judged, class_agnostic)


def _merged_and_split(truth: SceneTruth, predicted: ScenePrediction, judged: list[int]) -> tuple[int, int] | None:
    """Return the counts of `count_merged_and_split` for masks of judged classes; None if masks share points."""
    assert truth.objects is not None and predicted.masks is not None and predicted.classes is not None
    masks = predicted.masks[np.isin(predicted.classes, judged)]
    if (masks.sum(0) > 1).any():
        return None
    return count_merged_and_split(truth.objects, masks, judged)


def _check_restricted(predicted: ScenePrediction, benchmark: Benchmark, protocol: Protocol) -> None:
    assert predicted.labels is not None
    if protocol.predictions != "restricted":
        return
    named = np.unique(predicted.labels[(predicted.labels >= 0) & (predicted.labels < benchmark.num_classes)])
    outside = set(named.tolist()) - set(benchmark.groups[protocol.foreground])
    if outside:
        name = benchmark.class_names[min(outside)]
        raise UserError(f"{predicted.source}: has points of '{name}', which restricted predictions cannot name")


def _check_complete(names: list[str], counts: list, matches: list) -> None:
    if not names:
        raise UserError("no scene to score")
    if len(set(names)) < len(names):
        raise UserError("a scene is given twice; each counts once")
    for kind, found in (("labels", counts), ("instances", matches)):
        if found and len(found) < len(names):
            raise UserError(f"{len(found)} of {len(names)} scenes have predicted {kind}; all must, or none")
    if not counts and not matches:
        raise UserError("the predictions hold neither labels nor instances")


def _digest_truth(digest: Any, truth: SceneTruth, with_objects: bool) -> None:
    digest.update(truth.name.encode() + np.ascontiguousarray(truth.labels, "<i8").tobytes())
    if with_objects and truth.objects is not None:
        digest.update(np.ascontiguousarray(truth.objects, "<i8").tobytes())
