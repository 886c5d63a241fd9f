"""Reports of scored predictions as text, JSON and CSV, with all choices that the scores depend on."""

from __future__ import annotations

import csv
import hashlib
import io
import json
import math
import platform
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

import xmask3d
from xmask3d.files import atomic_write, sha256_of
from xmask3d.metrics.scores import Scores, title_of
from xmask3d.metrics.statistics import LEVEL, Statistics
from xmask3d.seal import sealed_json
from xmask3d.splits import Benchmark

STATISTICS = "statistics.npz"
RESULTS = "results.json"


@dataclass(frozen=True)
class PredictionResults:
    """Scores of a method's predictions.

    Attributes:
        method: name of the method.
        benchmark: class list and groups.
        statistics: counts of each scene.
        values: scores by name in [0, 1]; NaN for a score without a value.
        intervals: lower and upper end of the middle 95 % of the resamples, by score; empty for a single scene.
        about: further facts that the scores depend on.
    """

    method: str
    benchmark: Benchmark
    statistics: Statistics
    values: dict[str, float]
    intervals: dict[str, tuple[float, float]]
    about: dict[str, Any]

    def rows(self) -> list[dict[str, Any]]:
        """Return one dict per class."""
        statistics, names = self.statistics, self.benchmark.class_names
        rows: list[dict[str, Any]] = [
            {"class": name, "groups": [group for group, ids in statistics.groups.items() if i in ids]}
            for i, name in enumerate(names)
        ]
        if statistics.counts is not None:
            tally = statistics.tally()
            for i, row in enumerate(rows):
                row |= {"points": int(tally.truth[i]), "iou": tally.iou[i], "accuracy": tally.accuracy[i]}
        if statistics.matches is not None:
            objects = np.sum([scene.objects for scene in statistics.matches], 0)
            per_class = statistics.instances().per_class
            for k, i in enumerate(statistics.judged):
                rows[i] |= {"objects": int(objects[k])}
                rows[i] |= {name: None if math.isnan(values[k]) else values[k] for name, values in per_class.items()}
        return rows

    def table(self) -> str:
        """Format the results as text for a console."""
        matching = ", ".join(f"{count} by {kind}" for kind, count in self.about["matching"].items())
        protocol = ", ".join(f"{name} {value}" for name, value in self.statistics.protocol.as_dict().items() if value)
        lines = [
            f"{self.method} on {self.benchmark.name}: {len(self.statistics.scenes)} scenes, "
            f"{self.about['points']} points",
            f"protocol: {protocol}",
            f"points matched: scenes {matching}",
            "",
            f"{'':<16}{'%':>8}   {LEVEL} % of resampled scenes",
        ]
        for name, value in self.values.items():
            ends = self.intervals.get(name)
            spread = "" if ends is None else f"   {100 * ends[0]:.2f} to {100 * ends[1]:.2f}"
            lines.append(f"{title_of(name):<16}{_percent(value)}{spread}")
        if counts := self.about.get("separation"):
            lines += ["", ", ".join(f"{name.replace('_', ' ')}: {count}" for name, count in counts.items())]
        columns = [
            name for name in ("iou", "accuracy", "ap", "ap50", "ap25") if any(name in row for row in self.rows())
        ]
        lines += ["", f"{'class':<28}" + "".join(f"{name:>10}" for name in columns)]
        for row in self.rows():
            lines.append(f"{row['class']:<28.28}" + "".join(f"  {_percent(row.get(name))}" for name in columns))
        return "\n".join(lines)

    def as_json(self) -> dict[str, Any]:
        """Return the scores, their counts and all choices that they depend on."""
        statistics, benchmark = self.statistics, self.benchmark
        class_list = {
            "names": list(benchmark.class_names),
            "ids_of_points": list(benchmark.file_ids_3d),
            "ids_of_results": list(benchmark.file_ids_2d),
            "groups": {name: list(ids) for name, ids in benchmark.groups.items()},
            "instance_classes": list(statistics.judged),
        }
        digest = hashlib.sha256(json.dumps(class_list, sort_keys=True).encode()).hexdigest()
        labels = None if statistics.counts is None else Scores.of(statistics.tally(), ()).as_dict()
        return {
            "kind": "predictions",
            "method": self.method,
            "benchmark": benchmark.name,
            "protocol": statistics.protocol.as_dict(),
            **self.about,
            "class_list": {**class_list, "sha256": digest},
            "versions": {
                "xmask3d": xmask3d.__version__,
                "numpy": np.__version__,
                "python": platform.python_version(),
            },
            "headlines": {name: None if math.isnan(value) else value for name, value in self.values.items()},
            "intervals": {name: list(ends) for name, ends in self.intervals.items()},
            "scores": labels,
            "classes": self.rows(),
            "scenes": list(statistics.scenes),
        }

    def write(self, folder: Path) -> None:
        """Write `results.txt`, `.json` and `.csv`, and the counts of each scene, which comparisons need."""
        self.statistics.save(folder / STATISTICS)
        rows = [row | {"groups": " ".join(row["groups"])} for row in self.rows()]
        text = io.StringIO()
        fields = list(dict.fromkeys(name for row in rows for name in row))
        writer = csv.DictWriter(text, fields, lineterminator="\n")
        writer.writeheader()
        writer.writerows(rows)
        content = {**self.as_json(), "statistics_sha256": sha256_of(folder / STATISTICS)}
        atomic_write(folder / "results.txt", self.table() + "\n")
        atomic_write(folder / "results.csv", text.getvalue())
        atomic_write(folder / RESULTS, sealed_json(content, indent=1, allow_nan=False))


def _percent(value: float | None) -> str:
    return f"{'-':>8}" if value is None or math.isnan(value) else f"{100 * value:8.2f}"
