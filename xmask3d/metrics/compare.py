"""Comparison of methods and runs by the scores of evaluations and predictions, with the uncertainty of differences."""

from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import compress
from pathlib import Path
from statistics import mean, stdev
from typing import Any

import numpy as np

from xmask3d.errors import UserError
from xmask3d.files import newest
from xmask3d.metrics.report import RESULTS, STATISTICS
from xmask3d.metrics.scores import title_of
from xmask3d.metrics.statistics import LEVEL, Protocol, Statistics, interval, load_evaluated, resample
from xmask3d.seal import read_sealed_json

BRANCHES = ("fused", "2d", "3d")
COLUMNS = ("hiou", "miou_base", "miou_novel")
ORDER = (
    "hiou", "miou_base", "miou_novel", "f_miou", "f_macc", "miou_head", "miou_common", "miou_tail", "miou_all", "hap50",
    "ap", "ap50", "ap25", "ap_base", "ap_novel", "ap_head", "ap_common", "ap_tail",
)  # fmt: skip
"""Columns of tables with predictions; a table shows those for which a row has values."""


@dataclass(frozen=True)
class Row:
    """Row of a comparison.

    Attributes:
        name: name of the method or variant.
        values: values of all runs in per cent, by branch and score; empty for predictions.
        headlines: values of all runs in per cent, by score; for an evaluation, those of the fused features.
        kind: class list, protocol and scenes, which must be equal in a comparison.
        paths: result files of the runs.
    """

    name: str
    values: dict[str, dict[str, list[float]]]
    headlines: dict[str, list[float]]
    kind: dict[str, Any]
    paths: list[Path]

    @property
    def runs(self) -> int:
        """Number of evaluations behind the row."""
        return len(self.paths)


def read_row(name: str, files: Sequence[Path]) -> Row:
    """Collect the results of runs that differ only in their seed.

    Args:
        name: name of the row.
        files: `results.json` of evaluations or scored predictions, or folders that contain such files. If a run was
            evaluated several times, its newest result counts.

    Raises:
        UserError: no results, or results of different benchmarks, protocols, settings or sets of scenes.
    """
    paths = [path for file in files for path in ([file] if file.is_file() else sorted(file.rglob(RESULTS)))]
    if not paths:
        raise UserError(
            f"{name}: no results.json below {', '.join(map(str, files))}; evaluate first (xmask3d evaluate)"
        )
    contents = [_read(path) for path in paths]
    own = [content.get("kind") != "predictions" for content in contents]
    if any(own):  # predictions inside the folder of a run were scored from its evaluation
        paths, contents = list(compress(paths, own)), list(compress(contents, own))
    paths, contents = _newest_of_runs(paths, contents)
    kinds = [comparable(content) for content in contents]
    if any(difference(kinds[0], kind) for kind in kinds):
        raise UserError(f"{name}: results of different benchmarks, protocols or scenes cannot be averaged")
    settings = [[content.get("settings", {}).get(part) for part in ("evaluate", "model")] for content in contents]
    other = next((i for i, values in enumerate(settings) if values != settings[0]), None)
    if other is not None:
        raise UserError(f"{name}: {paths[0]} and {paths[other]} are of different settings and cannot be averaged")
    if all("headlines" in content for content in contents):
        values, shown = {}, [content["headlines"] for content in contents]
    else:
        values = {
            branch: {column: [100 * content["scores"][branch][column] for content in contents] for column in COLUMNS}
            for branch in BRANCHES
        }
        shown = [
            content["scores"]["fused"] | {"miou_all": content["scores"]["fused"].get("miou")} for content in contents
        ]
    headlines = {
        column: [100 * scores[column] for scores in shown]
        for column in ORDER
        if all(scores.get(column) is not None for scores in shown)
    }
    return Row(name, values, headlines, kinds[0], paths)


def _read(path: Path) -> dict[str, Any]:
    content = read_sealed_json(path, "results")
    needed = {"benchmark", "protocol", "scenes", "scores"}
    if not needed <= content.keys():
        raise UserError(f"{path}: not results of an evaluation; give a results.json of xmask3d evaluate")
    return content


def comparable(content: Mapping[str, Any]) -> dict[str, Any]:
    """Return, by name, everything that must be equal for two results to share a table."""
    protocol = content["protocol"]
    if isinstance(protocol, str):
        protocol = Protocol(method=protocol).as_dict()  # results of an evaluation of this project's model
    return {
        "class list and split": content["benchmark"],
        "classes": content.get("class_list", {}).get("sha256"),
        **protocol,
        "set of scenes": tuple(content["scenes"]),
        "truth": content.get("truth_sha256"),
    }


def difference(first: Mapping[str, Any], second: Mapping[str, Any]) -> str | None:
    """Return the name of the first entry that makes two results incomparable, or None.

    An entry that one of them does not have, such as the number of classes per mask without masks, does not count.
    """
    for name in first:
        values = first[name], second.get(name)
        if None not in values and values[0] != values[1]:
            return name
    return None


def check_comparable(rows: Sequence[Row]) -> None:
    """Raise `UserError` if two rows differ in protocol, class list, split or scenes."""
    for row in rows[1:]:
        name = difference(rows[0].kind, row.kind)
        if name is None:
            continue
        values = [f"{each.name} has {_short(each.kind[name])}" for each in (rows[0], row)]
        raise UserError(f"one table holds one protocol; {name.replace('_', ' ')} differs: {', '.join(values)}")


def _short(value: Any) -> str:
    return f"{len(value)} scenes" if isinstance(value, tuple) else f"'{str(value)[:24]}'"


def _newest_of_runs(paths: Sequence[Path], contents: Sequence[dict]) -> tuple[list[Path], list[dict]]:
    """Keep the newest evaluation of each run; earlier ones differ in checkpoint or settings, not in the seed."""
    of_path, of_run = dict(zip(paths, contents, strict=True)), defaultdict(list)
    for path, content in of_path.items():
        of_run[Path(content["checkpoint"]).parent if "checkpoint" in content else path].append(path)
    chosen = sorted(newest(found, "name one of them") for found in of_run.values())
    return chosen, [of_path[path] for path in chosen]


def markdown(rows: Sequence[Row], branches: Sequence[str] = BRANCHES) -> str:
    """Format a Markdown table: mean ± standard deviation over several runs.

    A table of evaluations shows hIoU, base and novel mIoU of each branch. A table with predictions has a column for
    each score that any row has; in it, evaluations show the scores of their fused features.
    """
    if all(row.values for row in rows):
        heads = [f"{branch} {title}" for branch in branches for title in ("hIoU", "base", "novel")]
        cells = [[row.values[branch][column] for branch in branches for column in COLUMNS] for row in rows]
    else:
        columns = [column for column in ORDER if any(column in row.headlines for row in rows)]
        heads = [title_of(column) for column in columns]
        cells = [[row.headlines.get(column, []) for column in columns] for row in rows]
    lines = [f"| run | n | {' | '.join(heads)} |", "|---|---|" + "---:|" * len(heads)]
    for row, values in zip(rows, cells, strict=True):
        lines.append(f"| {row.name} | {row.runs} | {' | '.join(map(mean_cell, values))} |")
    return "\n".join(lines)


def mean_cell(values: Sequence[float]) -> str:
    """Write the mean of some runs, and their standard deviation if there are several; a dash for none."""
    if not values:
        return "–"
    return f"{mean(values):.1f} ± {stdev(values):.1f}" if len(values) > 1 else f"{values[0]:.1f}"


def paired(first: Row, second: Row, columns: Sequence[str] = ORDER, resamples: int = 1000, seed: int = 0) -> list[str]:
    """Describe by how much one method beats another, in one line per score that both have.

    Both are scored on the same resamples of the scenes, so scenes that are hard for both cancel out. The mean counts if
    a row has several runs, which differ in their seed. Runs are drawn with replacement too, in pairs if both rows have
    the same number of them. The number after ± is half the width of the interval that holds 95 % of the differences.

    Raises:
        UserError: the rows differ in their scenes, or have no counts for each scene.
    """
    check_comparable([first, second])
    pair = [[load_statistics(path) for path in row.paths] for row in (first, second)]
    scenes = len(pair[0][0].scenes)
    times, rng = resample(scenes, resamples, seed), np.random.default_rng([seed, 1])
    picks = [rng.integers(row.runs, size=(row.runs, resamples)) for row in (first, second)]
    if first.runs == second.runs:
        picks[1] = picks[0]
    (a, b), drawn = [_mean(runs) for runs in pair], [_mean(*each, times) for each in zip(pair, picks, strict=True)]
    lines = []
    for column in columns:
        ends = interval(drawn[0][column] - drawn[1][column]) if column in a and column in b else None
        if ends is None:
            continue
        gain, margin = 100 * float(a[column][0] - b[column][0]), 50 * (ends[1] - ends[0])
        better, worse = (first, second) if gain >= 0 else (second, first)
        sure = ends[0] > 0 or ends[1] < 0
        verb = (
            f"{better.name} beats {worse.name} by"
            if sure
            else f"{first.name} and {second.name} do not differ measurably:"
        )
        lines.append(f"{title_of(column)}: {verb} {abs(gain):.1f} ± {margin:.1f}")
    runs = "" if max(first.runs, second.runs) == 1 else f" and of {first.runs} and {second.runs} runs"
    note = f"(±: {LEVEL} % of {resamples} resamples of {scenes} scenes{runs}, both on the same; seed {seed})"
    return [*lines, note] if lines else []


def _mean(
    runs: Sequence[Statistics], picks: np.ndarray | None = None, times: np.ndarray | None = None
) -> dict[str, np.ndarray]:
    """Average the headlines of runs; for resamples, over the runs that were drawn (runs x resamples)."""
    found = [run.headlines(times) for run in runs]
    names = [name for name in found[0] if all(name in values for values in found)]
    stacked = {name: np.stack([values[name] for values in found]) for name in names}
    if picks is not None:
        stacked = {name: np.take_along_axis(values, picks, 0) for name, values in stacked.items()}
    return {name: values.mean(0) for name, values in stacked.items()}


def load_statistics(path: Path) -> Statistics:
    """Load the counts of each scene from beside a run's results. Raises `UserError` if there are none."""
    content = _read(path)
    if content.get("kind") != "predictions":
        return load_evaluated(path.parent, content)
    classes = content["class_list"]
    return Statistics.load(
        path.parent / STATISTICS, Protocol(**content["protocol"]), classes["groups"], classes["instance_classes"]
    )


def many_scenes(rows: Sequence[Row]) -> bool:
    """Return True if there are rows of several scenes, so that differences have intervals."""
    return len(rows) > 1 and len(np.unique(rows[0].kind["set of scenes"])) > 1
