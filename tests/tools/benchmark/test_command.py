"""Measurements of several runs in one report."""

import subprocess
import sys
from pathlib import Path

from tools.benchmark.case import Case, Measurement
from tools.benchmark.machine import Machine
from tools.benchmark.report import write_json

ROOT = Path(__file__).parents[3]


def test_runs_are_merged_the_last_one_of_a_case_counting(tmp_path) -> None:
    machine = Machine("some cpu", 2, 8.0, "Linux", "2.0", 1, "cpu", 0.5, {"float32": 50.0})
    case, other = (Case("sparse", "a", name, {"kind": "float32"}) for name in ("xmask3d", "minkowski"))
    write_json(tmp_path / "1.json", machine, [Measurement(case, (9.0,), (9.0,)), Measurement(other, (6.0,), (6.0,))])
    write_json(tmp_path / "2.json", machine, [Measurement(case, (2.0,), (2.0,))])
    command = [sys.executable, "-m", "tools.benchmark", "--merge", tmp_path / "1.json", tmp_path / "2.json"]
    done = subprocess.run(command, capture_output=True, text=True, check=True, cwd=ROOT)
    rows = [line.split(" | ") for line in done.stdout.splitlines()[-3:] if line.startswith("| a")]
    assert [(row[1], row[2], row[5]) for row in rows] == [("xmask3d", "2.000", "1.00"), ("minkowski", "6.000", "3.00")]
