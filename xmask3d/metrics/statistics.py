"""Counts of each scene, from which all scores and their spread over scenes are computed."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np

from xmask3d.errors import UserError
from xmask3d.files import atomic_write
from xmask3d.guarded import read_arrays
from xmask3d.metrics.instances import InstanceScores, SceneMatches, average_precision
from xmask3d.metrics.scores import ALL, ForegroundRules, Headline, Tally, find_headline, harmonic_mean

RESAMPLES_AT_ONCE = 32

LEVEL = 95  # share of the resamples inside an interval, in per cent


@dataclass(frozen=True)
class Protocol:
    """Choices, besides the predictions, that scores depend on; scores of different protocols are not comparable.

    Attributes:
        predictions: "free" if predictions could be any class, "restricted" if only classes of the foreground.
        foreground: class group behind f-mIoU and f-mAcc.
        background, absent: see `ForegroundRules`.
        class_agnostic: true if instances are compared without their classes.
        classes_per_mask: "one" (top-1), or "several" if a mask is predicted under several classes (top-K); None without
            instances.
        method: permitted use of the truth at test time; "reference" permits the same as the published evaluation.
    """

    predictions: str = "free"
    foreground: str = "foreground"
    background: str = "dropped"
    absent: str = "left_out"
    class_agnostic: bool = False
    classes_per_mask: str | None = None
    method: str = "default"

    @property
    def rules(self) -> ForegroundRules:
        """Choices behind f-mIoU and f-mAcc."""
        return ForegroundRules(self.foreground, self.background, self.absent)  # type: ignore[arg-type]

    def as_dict(self) -> dict[str, Any]:
        """Return all choices by their names."""
        return asdict(self)


@dataclass(frozen=True)
class Statistics:
    """Counts of S scenes under a protocol.

    Attributes:
        scenes: names of the S scenes.
        protocol: choices behind the scores.
        groups: class ids by group.
        judged: class ids of instances, in the order used in `matches`.
        counts: S x K x (K + 1) numbers of points by true and predicted class, or None without labels.
        matches: comparison of the objects of each of the S scenes, or None without instances.
    """

    scenes: Sequence[str]
    protocol: Protocol
    groups: Mapping[str, Sequence[int]]
    judged: Sequence[int]
    counts: np.ndarray | None
    matches: Sequence[SceneMatches] | None

    def tally(self) -> Tally:
        """Sum the points of all scenes."""
        assert self.counts is not None
        return Tally(self.counts.sum(0), self.groups)

    def instances(self, areas: np.ndarray | None = None) -> InstanceScores:
        """Return the average precision of all scenes, or of the given areas."""
        if areas is None:
            assert self.matches is not None
            areas = average_precision(self.matches)
        place = {class_id: k for k, class_id in enumerate(self.judged)}
        return InstanceScores(areas, {n: [place[i] for i in ids if i in place] for n, ids in self.groups.items()})

    def headlines(self, weights: np.ndarray | None = None) -> dict[str, np.ndarray]:
        """Return scores by name, once for all scenes, or for each of B resamples of them.

        Args:
            weights: B x S, how often each scene counts.

        Returns:
            B values of each score (1 without weights); NaN for a score that cannot be computed.
        """
        times = np.ones((1, len(self.scenes)), np.int64) if weights is None else weights
        return self._semantic(times) | self._instance(times)

    def _semantic(self, times: np.ndarray) -> dict[str, np.ndarray]:
        if self.counts is None:
            return {}
        functions = semantic_headlines(self.groups, self.protocol.rules)
        values: dict[str, list[float]] = {name: [] for name in functions}
        flat = self.counts.reshape(len(self.counts), -1).astype(np.float64)
        occurring = self.counts.sum((0, 2)) > 0
        for start in range(0, len(times), RESAMPLES_AT_ONCE):
            for counts in times[start : start + RESAMPLES_AT_ONCE] @ flat:
                tally = self._resampled(counts.reshape(self.counts.shape[1:]), occurring)
                for name, function in functions.items():
                    values[name].append(function(tally))
        return {name: np.array(column) for name, column in values.items()}

    def _resampled(self, counts: np.ndarray, occurring: np.ndarray) -> Tally:
        """Return the counts of a resample; its groups leave out classes that no drawn scene has, but other scenes do.

        A class without points in any scene counts as 0 if the protocol says so, while a class that was merely not drawn
        carries no information.
        """
        kept = (counts.sum(1) > 0) | ~occurring
        groups = {ALL: range(len(kept)), **self.groups}
        return Tally(counts, {name: [i for i in ids if kept[i]] for name, ids in groups.items()})

    def _instance(self, times: np.ndarray) -> dict[str, np.ndarray]:
        if self.matches is None:
            return {}
        rows = [_instance_headlines(self.instances(areas)) for areas in average_precision(self.matches, times)]
        return {name: np.array([row[name] for row in rows]) for name in rows[0]}

    def save(self, path: Path) -> None:
        """Write a compressed npz with the non-zero cells of the counts and a single table of matches."""
        arrays: dict[str, np.ndarray] = {"scenes": np.array(self.scenes)}
        if self.counts is not None:
            cells = np.nonzero(self.counts)
            arrays |= {"cells": np.stack(cells), "points": self.counts[cells], "shape": np.array(self.counts.shape)}
        if self.matches is not None:
            arrays["objects"] = np.stack([scene.objects for scene in self.matches])
            arrays["rows"] = np.array([len(scene.kind) for scene in self.matches])
            for name in _COLUMNS:
                arrays[name] = np.concatenate([getattr(scene, name) for scene in self.matches])
        atomic_write(path, lambda part: np.savez_compressed(part, **arrays))  # type: ignore[arg-type]

    @classmethod
    def load(
        cls, path: Path, protocol: Protocol, groups: Mapping[str, Sequence[int]], judged: Sequence[int]
    ) -> Statistics:
        """Read saved statistics.

        Raises:
            UserError: the file is missing or damaged.
        """
        try:
            arrays = read_arrays(path)
            counts, matches = None, None
            if "cells" in arrays:
                counts = np.zeros(arrays["shape"], np.int64)
                counts[tuple(arrays["cells"])] = arrays["points"]
            if "objects" in arrays:
                columns = [np.split(arrays[name], np.cumsum(arrays["rows"])[:-1]) for name in _COLUMNS]
                matches = [SceneMatches(*row) for row in zip(*columns, arrays["objects"], strict=True)]
            return cls([str(name) for name in arrays["scenes"]], protocol, groups, judged, counts, matches)
        except (UserError, KeyError, ValueError, IndexError) as error:
            raise UserError(f"{path}: missing or damaged ({error}); score the predictions again") from error


_COLUMNS = ("kind", "overlap", "confidence", "correct")


def resample(scenes: int, resamples: int, seed: int) -> np.ndarray:
    """Draw how often each scene counts in each resample with replacement, resamples x scenes, from a seed."""
    return np.random.default_rng(seed).multinomial(scenes, np.full(scenes, 1 / scenes), size=resamples)


def interval(values: np.ndarray) -> tuple[float, float] | None:
    """Return the ends of the middle 95 % of resampled values; None if a score is missing in all of them."""
    values = values[~np.isnan(values)]
    if not len(values):
        return None
    low, high = np.percentile(values, [(100 - LEVEL) / 2, (100 + LEVEL) / 2])
    return float(low), float(high)


def semantic_headlines(groups: Mapping[str, Sequence[int]], rules: ForegroundRules) -> dict[str, Headline]:
    """Return, by name, the scores of labels that are possible with a class list."""
    found: dict[str, Headline] = {}
    if groups.get("base") and groups.get("novel"):
        found = {name: find_headline(name) for name in ("hiou", "miou_base", "miou_novel", "macc_base", "macc_novel")}
    if rules.group in groups:
        found |= {"f_miou": rules.miou, "f_macc": rules.macc}
    for kind in ("miou", "macc"):
        found |= {f"{kind}_{group}": find_headline(f"{kind}_{group}") for group in _FREQUENCIES if group in groups}
    return found | {name: find_headline(name) for name in (f"miou_{ALL}", f"macc_{ALL}", "all_accuracy")}


_FREQUENCIES = ("head", "common", "tail")


def _instance_headlines(scores: InstanceScores) -> dict[str, float]:
    """Compute AP of all classes and of groups; hAP50 is the harmonic mean of AP50 of base and novel classes."""
    kinds = ("ap", "ap50", "ap25")
    found = {kind: scores.mean(kind) for kind in kinds}
    for group in ("base", "novel", *_FREQUENCIES):
        if scores.groups.get(group) and (group in _FREQUENCIES or scores.groups.get("novel")):
            found |= {f"{kind}_{group}": scores.mean(kind, group) for kind in kinds}
    if "ap50_novel" in found:
        found["hap50"] = harmonic_mean(found["ap50_base"], found["ap50_novel"])
    return found


def load_evaluated(folder: Path, content: Mapping[str, Any]) -> Statistics:
    """Load the counts of each scene, for fused features, that an evaluation of this project's model saved.

    Args:
        folder: folder of the evaluation's results.
        content: content of its `results.json`.

    Raises:
        UserError: the results have no settings, or a scene's file is missing.
    """
    try:
        split = content["settings"]["benchmark"]
        counts = []
        for name in content["scenes"]:
            counts.append(read_arrays(folder / "scenes" / f"{name}.npz")["counts_fused"])
        groups = {"base": split["base"], "novel": split["novel"]}
        protocol = Protocol(method=content["protocol"])
        return Statistics(content["scenes"], protocol, groups, (), np.stack(counts), None)
    except (UserError, KeyError, TypeError, ValueError) as error:
        raise UserError(f"{folder}: no counts of each scene ({error}); evaluate again") from error
