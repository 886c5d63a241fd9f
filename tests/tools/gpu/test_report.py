"""The report on a GPU, tried on a CPU with small sizes."""

import json
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch

from tests.helpers.command import run_command
from tools.benchmark.case import Case, Measurement
from tools.benchmark.machine import Machine
from tools.gpu import __main__ as report
from tools.gpu import results, speed
from tools.gpu.__main__ import SECTIONS, run_section
from tools.gpu.report import Row, Settings, markdown

SMALL = Settings("cpu", small=True)
RECORDED = "recorded cases, float32"


@pytest.mark.slow
def test_results_and_steps_on_a_cpu() -> None:
    (row,) = results.recorded_cases(SMALL)
    assert row.good and row.case == "g_maskclip" and "largest error" in row.result
    kept = torch.backends.cudnn.benchmark
    steps = [run for name, (run, _) in SECTIONS.items() if name.startswith("training step")]
    for run in steps:
        (row,) = run(SMALL)
        assert row.good and row.case == "2 views" and row.numbers["seconds"] > 0 and row.numbers["loss"] > 1
    torch.backends.cudnn.benchmark = kept
    assert len(steps) == 4
    (row,) = speed.published_scene(SMALL)
    assert row.good and "s for 2 views" in row.result


@pytest.mark.slow
def test_a_stopped_run_resumes() -> None:
    (row,) = results.resume(SMALL)
    assert row.good and row.numbers["error"] == 0  # bit for bit on a CPU


@pytest.mark.slow
def test_a_section_that_fails_or_takes_too_long_is_a_row() -> None:
    (failed,) = run_section(RECORDED, Settings("no-such-device", small=True), 200)
    assert failed.section == RECORDED and failed.good is False
    assert failed.result.startswith("ended with code 1: RuntimeError")
    (late,) = run_section(RECORDED, SMALL, 1)
    assert late == Row("the rest", "stopped after 1 s", False, section=RECORDED)
    (left_out,) = run_section(RECORDED, SMALL, 0.5)
    assert left_out.result == "left out: no time was left"


def test_numbers_outside_the_tolerance_fail(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    (row,) = results.low_precision(SMALL)
    assert row.good and 1e-4 < row.numbers["error"] < results.LOW_TOLERANCE
    monkeypatch.setattr(results, "LOW_TOLERANCE", 1e-5)
    assert [row.good for row in results.low_precision(SMALL)] == [False]
    monkeypatch.setattr(results, "GOLDEN", tmp_path / "missing")
    assert list(results.recorded_cases(SMALL)) == list(results.low_precision(SMALL)) == [results.NOT_HERE]


def test_timings_that_fail_are_rows(monkeypatch: pytest.MonkeyPatch) -> None:
    def run(case: Case) -> Measurement:
        if case.contender == "per-offset":
            return Measurement(case, failure="out of memory")
        return Measurement(case, (3.0, 1.0, 2.0), (1.0,), 1 << 30)

    monkeypatch.setattr(speed, "run_case", run)
    monkeypatch.setattr(speed.importlib.util, "find_spec", lambda name: None)
    rows = list(speed.sparse(SMALL))
    assert {row.case for row in rows[:2]} == {"MinkowskiEngine", "spconv"}
    assert rows[2] == Row("MinkUNet34C, 2k voxels, forward, float32 [xmask3d]", "2.0000 s, peak 1.00 GiB", None,
                          {"seconds": 2.0, "peak_gib": 1.0})  # fmt: skip
    assert rows[3].good is False and rows[3].result == "out of memory" and len(rows) == 6
    assert len(list(speed.features(Settings("cpu")))) == 5 and len(list(speed.scene(SMALL))) == 1


def test_the_report_is_written_after_each_section(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    asked = []

    def run(name: str, settings: Settings, seconds: float) -> Iterator[Row]:
        asked.append((name, settings, seconds))
        if len(asked) == 2:
            assert "| fine |" in (tmp_path / "report.md").read_text()
        yield Row("a | b", "fine" if len(asked) == 1 else "slow", len(asked) == 1, section=name)

    machine = Machine("a processor", 2, 8.0, "Linux", "2.14", 1, "cpu", 0.5, {"float32": 1234.5})
    monkeypatch.setattr(report, "describe_machine", lambda device, threads: machine)
    monkeypatch.setattr(report, "run_section", run)
    names = list(SECTIONS)[:2]
    arguments = ["--device", "cpu", "--small", "--report", str(tmp_path / "report"), "--only", *names]
    assert report.main(arguments) == 1
    assert [(name, settings) for name, settings, _ in asked] == [(name, SMALL) for name in names]
    assert 0 < asked[0][2] <= SECTIONS[names[0]][1]
    lines = (tmp_path / "report.md").read_text().splitlines()
    assert lines[0].startswith("Machine: no GPU; a processor, 2 cores") and "float32 1,234" in lines[0]
    assert lines[-2:] == [f"| {names[0]} | a / b | fine | ok |", f"| {names[1]} | a / b | slow | FAILED |"]
    rows = json.loads((tmp_path / "report.json").read_text())["rows"]
    assert [Row(**row).good for row in rows] == [True, False]
    assert markdown(machine, []).count("\n") == 4


def test_doctor_starts_the_report_from_any_folder(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "")
    assert run_command("doctor", "--small") == 1  # an option without effect is refused
    started = []
    monkeypatch.setattr("xmask3d.cli.doctor.subprocess.run", lambda *a, **k: started.append((a, k)) or Started())
    assert run_command("doctor", "--gpu", "--device", "cpu", "--small") == 7
    ((command,), keywords) = started[0]
    assert command[1:] == ["-m", "tools.gpu", "--device", "cpu", "--report", "gpu-report", "--small"]
    assert (Path(keywords["env"]["PYTHONPATH"].split(":")[0]) / "tools" / "gpu").is_dir()


class Started:
    returncode = 7


@pytest.mark.gpu
@pytest.mark.parametrize("name", list(SECTIONS))
def test_a_section_on_a_gpu(name: str) -> None:
    rows = list(run_section(name, Settings("cuda"), SECTIONS[name][1]))
    bad = [row for row in rows if row.good is False]
    # A step that does not fit into the memory of a small card is no fault.
    assert rows and all("out of memory" in row.result and "training" in name for row in bad), bad
