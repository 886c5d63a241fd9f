"""Measurements as a table, as JSON and as a picture."""

import json
from collections import Counter
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from statistics import median
from typing import Any

from tools.benchmark.case import Case, Measurement
from tools.benchmark.machine import Machine
from xmask3d.errors import UserError

_HEAD = (
    "case", "contender", "seconds", "range", "CPU seconds", "times as fast", "GMAC", "GMAC/s", "of the floor",
    "peak GiB", "load",
)  # fmt: skip
OURS = "xmask3d"
_TIMES = ("seconds", "cpu_seconds")


def markdown(machine: Machine, measurements: Sequence[Measurement]) -> str:
    """Format a description of the machine and one row per measurement as Markdown.

    `times as fast` compares this project's median with the contender's in the same case; `of the floor` is the share of
    the rate that the machine reaches in dense products of the same type.
    """
    rates = ", ".join(f"{kind} {rate:.0f}" for kind, rate in machine.rates.items())
    lines = [
        f"Machine: {machine.processor}, {machine.cores} cores, {machine.memory_gib} GiB; device {machine.device}; "
        f"{machine.system}; torch {machine.torch}, {machine.threads} thread(s); load {machine.load:.1f} at the start. "
        f"Dense products reach (GMAC/s): {rates}.",
        "",
        "| " + " | ".join(_HEAD) + " |",
        "|" + " --- |" * len(_HEAD),
    ]
    ours = {entry.case.name: entry for entry in measurements if entry.case.contender == OURS and not entry.failure}
    lines += ["| " + " | ".join(_row(entry, ours.get(entry.case.name), machine)) + " |" for entry in measurements]
    return "\n".join(lines) + "\n"


def write_json(path: Path, machine: Machine, measurements: Sequence[Measurement]) -> None:
    """Write everything that was measured."""
    content = {"machine": asdict(machine), "measurements": [asdict(measurement) for measurement in measurements]}
    path.write_text(json.dumps(content, indent=1) + "\n", encoding="utf-8")


def read_json(path: Path) -> tuple[Machine, list[Measurement]]:
    """Read the file of `write_json`.

    Raises:
        UserError: there is no such file, or it holds something else.
    """
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
        entries = [
            Measurement(**{**entry, "case": Case(**entry["case"]), **{name: tuple(entry[name]) for name in _TIMES}})
            for entry in content["measurements"]
        ]
        return Machine(**content["machine"]), entries
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise UserError(f"{path} does not hold measurements of tools.benchmark: {error}") from error


def plot(path: Path, measurements: Sequence[Measurement]) -> None:
    """Draw the medians as bars, a group of bars a case; scenes that were measured alone as lines over their views."""
    from matplotlib.figure import Figure

    done = [measurement for measurement in measurements if not measurement.failure]
    growth = _alone(done)
    rest = [measurement for measurement in done if measurement not in growth]
    height = 1 + 0.16 * (len(rest) + len({measurement.case.name for measurement in rest}))
    figure = Figure(figsize=(9, height * bool(rest) + 3.5 * bool(growth)), layout="constrained")
    parts = [(height, _draw_bars, rest)] * bool(rest) + [(3.5, _draw_growth, growth)] * bool(growth)
    if parts:
        axes = figure.subplots(len(parts), squeeze=False, height_ratios=[size for size, _, _ in parts])[:, 0]
        for place, (_, draw, shown) in zip(axes, parts, strict=True):
            draw(place, shown)
    figure.savefig(path, dpi=150)


def _alone(done: Sequence[Measurement]) -> list[Measurement]:
    """Return scenes of several sizes for which no other contender was timed."""
    scenes = [measurement for measurement in done if measurement.case.part == "scene"]
    counts = Counter(measurement.case.name for measurement in scenes)
    alone = [measurement for measurement in scenes if counts[measurement.case.name] == 1]
    return alone if len(alone) > 1 else []


def _draw_growth(axes: Any, scenes: Sequence[Measurement]) -> None:
    for points in sorted({int(scene.case.options["points"]) for scene in scenes}):
        own = sorted((int(s.case.options["views"]), s.median) for s in scenes if s.case.options["points"] == points)
        axes.plot(*zip(*own, strict=True), marker="o", label=f"{points:,} points")
    axes.set_xscale("log", base=2)
    axes.set_yscale("log")
    axes.xaxis.set_major_formatter("{x:.0f}")
    axes.set_xlabel("views of a scene")
    axes.set_ylabel("seconds (median)")
    axes.grid(alpha=0.3)
    axes.legend(fontsize=8)


def _draw_bars(axes: Any, done: Sequence[Measurement]) -> None:
    names = list(dict.fromkeys(measurement.case.name for measurement in done))
    ordered = sorted(done, key=lambda measurement: names.index(measurement.case.name))
    places = [index + names.index(measurement.case.name) for index, measurement in enumerate(ordered)]  # a gap a case
    for contender in dict.fromkeys(measurement.case.contender for measurement in done):
        own = [(y, m.median) for y, m in zip(places, ordered, strict=True) if m.case.contender == contender]
        bars = axes.barh([y for y, _ in own], [seconds for _, seconds in own], 0.9, label=contender)
        axes.bar_label(bars, fmt="%.3g", padding=2, fontsize=7)
    middles = [[y for y, m in zip(places, ordered, strict=True) if m.case.name == name] for name in names]
    axes.set_yticks([sum(group) / len(group) for group in middles], names, fontsize=8)
    axes.invert_yaxis()
    axes.set_xscale("log")
    axes.margins(x=0.1, y=0.01)
    axes.set_xlabel("seconds (median)")
    axes.legend(fontsize=8, ncols=4, loc="lower center", bbox_to_anchor=(0.4, 1.0))  # above, clear of the numbers


def _row(entry: Measurement, ours: Measurement | None, machine: Machine) -> list[str]:
    if entry.failure:
        return [entry.case.name, entry.case.contender, entry.failure, *[""] * (len(_HEAD) - 3)]
    billions = entry.operations / 1e9
    processor = median(entry.cpu_seconds)
    rate = machine.rates.get(str(entry.case.options.get("kind")), 0)
    return [
        entry.case.name,
        entry.case.contender,
        f"{entry.median:.3f}",
        f"{min(entry.seconds):.3f}-{max(entry.seconds):.3f}",
        f"{processor:.2f}",
        f"{entry.median / ours.median:.2f}" if ours else "",
        f"{billions:.1f}" if billions else "",
        f"{billions / entry.median:.0f}" if billions else "",
        f"{billions / entry.median / rate:.0%}" if billions and rate else "",
        f"{entry.peak_bytes / 2**30:.2f}",
        f"{entry.load:.1f}",
    ]
