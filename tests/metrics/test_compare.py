"""Comparison of runs: means and spreads of what evaluations wrote."""

import json
import os
from pathlib import Path

import pytest

from xmask3d.errors import UserError
from xmask3d.metrics.compare import markdown, read_row


def write_results(path: Path, hiou: float, benchmark: str = "scannet20/B15N4", **more: object) -> Path:
    scores = {"hiou": hiou, "miou_base": 0.5, "miou_novel": 0.25}
    content = {
        "benchmark": benchmark,
        "protocol": "default",
        "scenes": ["scene5000_00"],
        "scores": {"fused": scores, "2d": scores, "3d": scores},
        **more,
    }
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(content))
    return path


def test_mean_and_spread_over_seeds(tmp_path: Path) -> None:
    files = [
        write_results(tmp_path / f"run{i}" / "evaluation" / "results.json", value)
        for i, value in enumerate((0.30, 0.40, 0.50))
    ]
    table = markdown([read_row("full", files)], ["fused"])
    assert table.splitlines()[-1] == "| full | 3 | 40.0 ± 10.0 | 50.0 ± 0.0 | 25.0 ± 0.0 |"


def test_a_folder_stands_for_the_results_below_it(tmp_path: Path) -> None:
    write_results(tmp_path / "run" / "evaluation" / "results.json", 0.35)
    row = read_row("one", [tmp_path / "run"])
    assert row.runs == 1
    assert row.values["3d"]["hiou"] == [35.0]
    assert "| one | 1 | 35.0 |" in markdown([row])


def test_of_a_run_that_was_evaluated_twice_the_newest_counts(tmp_path: Path) -> None:
    for time, (run, name, value) in enumerate([("a", "second", 0.1), ("a", "first", 0.3), ("b", "first", 0.5)]):
        checkpoint = str(tmp_path / run / "checkpoints" / f"step-{time}.pt")
        path = write_results(tmp_path / run / "evaluation" / name / "results.json", value, checkpoint=checkpoint)
        os.utime(path, (1e9 + time, 1e9 + time))
    assert read_row("two", [tmp_path]).values["fused"]["hiou"] == [30.0, 50.0]


def test_different_settings_are_not_averaged(tmp_path: Path) -> None:
    for name, rotations, root in (("a", 1, "here"), ("b", 1, "there"), ("c", 4, "here")):
        settings = {"evaluate": {"rotations": rotations}, "model": {"queries": 4}, "data": {"root": root}}
        write_results(tmp_path / f"{name}.json", 0.3, settings=settings)
    assert read_row("two", [tmp_path / "a.json", tmp_path / "b.json"]).runs == 2
    with pytest.raises(UserError, match=r"a\.json and .*c\.json are of different settings"):
        read_row("three", [tmp_path / f"{name}.json" for name in "abc"])


def test_different_benchmarks_are_not_averaged(tmp_path: Path) -> None:
    files = [write_results(tmp_path / "a.json", 0.3), write_results(tmp_path / "b.json", 0.3, "scannet20/B10N9")]
    with pytest.raises(UserError, match="different benchmarks"):
        read_row("mixed", files)


def test_missing_results_are_named(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"no results\.json below"):
        read_row("none", [tmp_path])


@pytest.mark.parametrize("text", ["[]", "{}", "\xff"])
def test_files_that_are_no_results(tmp_path: Path, text: str) -> None:
    path = tmp_path / "results.json"
    path.write_bytes(text.encode("latin1"))
    with pytest.raises(UserError, match=rf"{path}: (not |damaged, or not results)"):
        read_row("none", [path])
