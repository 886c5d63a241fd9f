"""Runs side by side: means and spreads over seeds of the scores that evaluations wrote."""

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import mean, stdev

from xmask3d.errors import UserError

BRANCHES = ("fused", "2d", "3d")
COLUMNS = ("hiou", "miou_base", "miou_novel")


@dataclass(frozen=True)
class Row:
    """One line of a comparison: a name and, per branch and score, the values of its runs in per cent."""

    name: str
    values: dict[str, dict[str, list[float]]]

    @property
    def runs(self) -> int:
        """How many evaluations the row is made of."""
        return len(self.values[BRANCHES[0]][COLUMNS[0]])


def read_row(name: str, files: Sequence[Path]) -> Row:
    """Collect the results of runs that differ in their seed.

    Args:
        name: of the row.
        files: `results.json` of evaluations, or folders below which they are; of a run that was evaluated several
            times the newest counts.

    Raises:
        UserError: no results, or results of different benchmarks, protocols, settings or sets of scenes.
    """
    paths = [path for file in files for path in ([file] if file.is_file() else sorted(file.rglob("results.json")))]
    if not paths:
        raise UserError(f"{name}: no results.json below {', '.join(map(str, files))}; evaluate first (tools/test.py)")
    contents = []
    for path in paths:
        try:
            contents.append(json.loads(path.read_text()))
        except (OSError, ValueError) as error:
            raise UserError(f"{path}: not readable as results ({error})") from error
    for path, content in zip(paths, contents, strict=True):
        if not isinstance(content, dict) or not {"benchmark", "protocol", "scenes", "scores"} <= content.keys():
            raise UserError(f"{path}: not results of an evaluation; give a results.json of tools/test.py")
    paths, contents = _newest_of_runs(paths, contents)
    kinds = {(content["benchmark"], content["protocol"], tuple(content["scenes"])) for content in contents}
    if len(kinds) > 1:
        raise UserError(f"{name}: results of different benchmarks, protocols or scenes cannot be averaged")
    settings = [[content.get("settings", {}).get(part) for part in ("evaluate", "model")] for content in contents]
    other = next((i for i, values in enumerate(settings) if values != settings[0]), None)
    if other is not None:
        raise UserError(f"{name}: {paths[0]} and {paths[other]} are of different settings and cannot be averaged")
    values = {
        branch: {column: [100 * content["scores"][branch][column] for content in contents] for column in COLUMNS}
        for branch in BRANCHES
    }
    return Row(name, values)


def _newest_of_runs(paths: Sequence[Path], contents: Sequence[dict]) -> tuple[list[Path], list[dict]]:
    """One evaluation a run, the newest: earlier ones are of other checkpoints or settings, and no further seeds."""
    newest: dict[Path, tuple[Path, dict]] = {}
    for path, content in sorted(zip(paths, contents, strict=True), key=lambda pair: pair[0].stat().st_mtime_ns):
        newest[Path(content["checkpoint"]).parent if "checkpoint" in content else path] = (path, content)
    chosen = sorted(newest.values(), key=lambda pair: pair[0])
    return [path for path, _ in chosen], [content for _, content in chosen]


def markdown(rows: Sequence[Row], branches: Sequence[str] = BRANCHES) -> str:
    """A Markdown table: per branch hIoU, base and novel mIoU; mean ± standard deviation over several runs."""
    heads = [f"{branch} {title}" for branch in branches for title in ("hIoU", "base", "novel")]
    lines = [f"| run | n | {' | '.join(heads)} |", "|---|---|" + "---:|" * len(heads)]
    for row in rows:
        cells = [_cell(row.values[branch][column]) for branch in branches for column in COLUMNS]
        lines.append(f"| {row.name} | {row.runs} | {' | '.join(cells)} |")
    return "\n".join(lines)


def _cell(values: Sequence[float]) -> str:
    return f"{mean(values):.1f} ± {stdev(values):.1f}" if len(values) > 1 else f"{values[0]:.1f}"
