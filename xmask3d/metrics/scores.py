"""Scores of a segmentation: IoU and accuracy of classes, their means over class groups, and headlines by name."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any, Literal

import numpy as np

from xmask3d.dotted import import_dotted, is_dotted
from xmask3d.errors import UserError

Absent = Literal["zero", "left_out"]
"""Treatment of a class that never occurs in the truth by a mean: it counts as 0, or it is left out."""

ALL = "all"
"""Group of all classes, which every benchmark has implicitly."""


@dataclass(frozen=True)
class Tally:
    """Counts of points by true and predicted class.

    Attributes:
        counts: K x (K + 1); rows are the truth, columns the prediction, the last one for points without prediction.
        groups: sorted class ids by the name of their group, such as base and novel.
    """

    counts: np.ndarray
    groups: Mapping[str, Sequence[int]]

    @cached_property
    def hits(self) -> np.ndarray:
        """Number of correctly labelled points of each class, K."""
        return self.counts.diagonal().copy()

    @cached_property
    def truth(self) -> np.ndarray:
        """Number of points of each class in the truth, K."""
        return self.counts.sum(1)

    @cached_property
    def union(self) -> np.ndarray:
        """Number of points of each class in truth or prediction, K."""
        return self.truth + self.counts[:, :-1].sum(0) - self.hits

    @cached_property
    def iou(self) -> np.ndarray:
        """Intersection over union, K in [0, 1]; 0 for a class that is neither in the truth nor predicted."""
        return self.hits / np.maximum(self.union, 1)

    @cached_property
    def accuracy(self) -> np.ndarray:
        """Share of each class's points that are labelled correctly, K in [0, 1]."""
        return self.hits / np.maximum(self.truth, 1)

    def members(self, group: str) -> list[int]:
        """Return the class ids of a group. Raises `UserError` if the class list does not have that group."""
        if group == ALL and ALL not in self.groups:
            return list(range(len(self.counts)))
        if group not in self.groups:
            raise UserError(f"no class group '{group}' in this class list (its groups: {', '.join(self.groups)}, all)")
        return list(self.groups[group])

    def miou(self, group: str = ALL, absent: Absent = "zero") -> float:
        """Average IoU over the classes of a group; 0 for an empty group."""
        return self._mean(self.iou, group, absent)

    def macc(self, group: str = ALL, absent: Absent = "zero") -> float:
        """Average accuracy over the classes of a group; 0 for an empty group."""
        return self._mean(self.accuracy, group, absent)

    def within(self, group: str) -> Tally:
        """Count only points whose true class is in a group; other points do not even count as false positives."""
        counts = np.zeros_like(self.counts)
        counts[self.members(group)] = self.counts[self.members(group)]
        return Tally(counts, self.groups)

    def _mean(self, values: np.ndarray, group: str, absent: Absent) -> float:
        chosen = self.members(group)
        if absent == "left_out":
            chosen = [i for i in chosen if self.truth[i]]
        return float(values[chosen].mean()) if chosen else 0.0


@dataclass(frozen=True)
class ForegroundRules:
    """Choices behind f-mIoU and f-mAcc, in which published tables differ.

    Attributes:
        group: class group that is judged.
        background: "dropped" if points of other true classes are ignored like unlabelled ones; "kept" if they count as
            false positives of their predicted classes.
        absent: "left_out" if the mean ignores a judged class that never occurs, "zero" if that class counts as 0.
    """

    group: str = "foreground"
    background: Literal["dropped", "kept"] = "dropped"
    absent: Absent = "left_out"

    def miou(self, tally: Tally) -> float:
        """Average IoU of the foreground, f-mIoU."""
        return self._points(tally).miou(self.group, self.absent)

    def macc(self, tally: Tally) -> float:
        """Average accuracy of the foreground, f-mAcc."""
        return self._points(tally).macc(self.group, self.absent)

    def _points(self, tally: Tally) -> Tally:
        return tally.within(self.group) if self.background == "dropped" else tally


Headline = Callable[[Tally], float]

HEADLINES: dict[str, Headline] = {
    "hiou": lambda tally: harmonic_mean(tally.miou("base"), tally.miou("novel")),
    "hacc": lambda tally: harmonic_mean(tally.macc("base"), tally.macc("novel")),
    "all_accuracy": lambda tally: float(tally.hits.sum() / max(tally.truth.sum(), 1)),
    "f_miou": ForegroundRules().miou,
    "f_macc": ForegroundRules().macc,
}
"""Scores with a name of their own. Means over a class group are called miou_<group> and macc_<group>."""

TITLES = {"hiou": "hIoU", "hacc": "hAcc", "all_accuracy": "allAcc", "f_miou": "f-mIoU", "f_macc": "f-mAcc",
          "miou": "mIoU", "macc": "mAcc", "ap": "AP", "ap50": "AP50", "ap25": "AP25", "hap50": "hAP50"}  # fmt: skip


def find_headline(name: str) -> Headline:
    """Find the function of a score by its name: one of `HEADLINES`, miou_<group>, macc_<group>, or a dotted path.

    Raises:
        UserError: there is no score, module or function of this name.
    """
    if name in HEADLINES:
        return HEADLINES[name]
    kind, _, group = name.partition("_")
    if kind in ("miou", "macc") and group:
        return lambda tally: getattr(tally, kind)(group)
    if not is_dotted(name):
        known = ", ".join(HEADLINES)
        raise UserError(f"no score '{name}'; known: {known}, miou_<group>, macc_<group>, or a dotted path to yours")
    found = import_dotted(name, "evaluate.headlines")
    if not callable(found):
        raise UserError(f"score '{name}' is no function; it should take a Tally and return a number")
    return found


def check_headlines(names: Sequence[str], num_classes: int, groups: Mapping[str, Sequence[int]]) -> None:
    """Raise `UserError`, before hours of work, if a score does not exist or needs a missing class group."""
    nothing = Tally(np.zeros((num_classes, num_classes + 1), np.int64), groups)
    for name in names:
        headline = find_headline(name)
        if "." not in name:
            headline(nothing)


def title_of(name: str) -> str:
    """Return the heading of a score in tables, with its class group; for a dotted path, the function's name."""
    kind, _, group = name.partition("_")
    if name not in TITLES and kind in TITLES and group:
        return f"{TITLES[kind]} {group}"
    return TITLES.get(name, name.rpartition(".")[2])


def harmonic_mean(a: float, b: float) -> float:
    """Return 2ab / (a + b), 0 if both are 0."""
    return 2 * a * b / (a + b) if a + b > 0 else 0.0


@dataclass(frozen=True)
class Scores:
    """Scores of a segmentation, all in [0, 1].

    Attributes:
        iou: K floats, intersection over union; 0 for a class that is neither in the truth nor predicted.
        accuracy: K floats, share of a class's points that are labelled correctly.
        counts: K, number of points of each class in the truth.
        miou, macc: means of `iou` and `accuracy` by class group, including "all"; 0 for an empty group.
        all_accuracy: share of all points that are labelled correctly.
        headlines: further scores by name.
    """

    iou: list[float]
    accuracy: list[float]
    counts: list[int]
    miou: dict[str, float]
    macc: dict[str, float]
    all_accuracy: float
    headlines: dict[str, float]

    @classmethod
    def of(cls, tally: Tally, headlines: Sequence[str] = ("hiou",)) -> Scores:
        """Score counted points.

        Raises:
            UserError: a headline is unknown, or needs a group that the class list does not have.
        """
        groups = (*tally.groups, ALL)
        return cls(
            iou=tally.iou.tolist(),
            accuracy=tally.accuracy.tolist(),
            counts=tally.truth.astype(np.int64).tolist(),
            miou={group: tally.miou(group) for group in groups},
            macc={group: tally.macc(group) for group in groups},
            all_accuracy=HEADLINES["all_accuracy"](tally),
            headlines={name: float(find_headline(name)(tally)) for name in headlines},
        )

    def as_dict(self) -> dict[str, Any]:
        """Flatten for a file: hiou, miou_base, accuracy_novel and so on; miou and mean_accuracy cover all classes."""
        return {
            "iou": self.iou,
            "accuracy": self.accuracy,
            "counts": self.counts,
            **{f"miou_{group}": value for group, value in self.miou.items() if group != ALL},
            **self.headlines,
            "miou": self.miou[ALL],
            "mean_accuracy": self.macc[ALL],
            "all_accuracy": self.all_accuracy,
            **{f"accuracy_{group}": value for group, value in self.macc.items() if group != ALL},
        }
