"""Sections about results: recorded numbers, lower precision, and a run that is stopped and resumed."""

import os
import signal
import tempfile
from collections.abc import Iterator
from functools import partial
from pathlib import Path

import torch

from tools.gpu.report import Row, Settings
from xmask3d.checkpoints.checkpoint import read_checkpoint
from xmask3d.resources import REPOSITORY

GOLDEN = REPOSITORY / "tests" / "golden"
NOT_HERE = Row("all", "not here: tests/golden is part of the repository; use a checkout of it")
# All cases that compute with torch. The largest come last, in case time runs out.
CASES = (
    "a_pc_processors", "d_projection", "g_maskclip", "c_decoder", "a_MinkUNet18A", "a_MinkUNet34C", "h_inference",
    "f_criterion", "e_ldm_small", "e_ldm_small_grad", "k_end2end", "e_ldm_full",
)  # fmt: skip
LOW_CASES = ("d_projection", "g_maskclip", "c_decoder", "a_MinkUNet18A", "e_ldm_small")
SMALL_CASES = ("g_maskclip",)
LOW_TOLERANCE = 0.1  # of the largest number of an array
RESUME_TOLERANCE = 0.01  # of the norm of all weights: a GPU adds in any order


def recorded_cases(settings: Settings) -> Iterator[Row]:
    """Compare with numbers recorded on a CPU, in float32 without TF32, gradients in float64."""
    if not GOLDEN.is_dir():
        yield NOT_HERE
        return
    from tests.parity.device import on_device
    from tests.parity.run import run_case

    for name in SMALL_CASES if settings.small else CASES:
        with on_device(settings.device):
            report = run_case(GOLDEN / name)
        words = report.lines()[0].partition(": ")[2]
        if failed := [item.name for item in report.comparisons if not item.passed]:
            words = f"{len(failed)} of {len(report.comparisons)} differ ({failed[0]} ...); {words}"
        yield Row(name, words, report.passed)


def low_precision(settings: Settings) -> Iterator[Row]:
    """Compare computations in bfloat16 with the recorded numbers, relative to the largest of each array."""
    if not GOLDEN.is_dir():
        yield NOT_HERE
        return
    from tests.parity.compare import Case, compare
    from tests.parity.device import on_device
    from tests.parity.run import RUNNERS

    for name in SMALL_CASES if settings.small else LOW_CASES:
        case = Case.load(GOLDEN / name)
        with on_device(settings.device), torch.autocast(torch.device(settings.device).type, torch.bfloat16):
            values = RUNNERS[name](case)
        # Equality is asked of decisions, which rounding may turn.
        errors = {item.name: item.error for item in compare(case, values) if item.tolerance}
        worst = max(errors, key=lambda key: errors[key])
        words = f"{len(errors)} arrays, largest difference {errors[worst]:.1e} ({worst}), {LOW_TOLERANCE:g} allowed"
        yield Row(name, words, errors[worst] <= LOW_TOLERANCE, {"error": errors[worst]})


def resume(settings: Settings) -> Iterator[Row]:
    """Train a tiny network, once through and once stopped by a signal and started again."""
    from tests.helpers.tiny import write_config

    with tempfile.TemporaryDirectory() as folder:
        config = write_config(Path(folder))
        through, stopped = Path(folder) / "through", Path(folder) / "stopped"
        train = partial(_train, settings.device, config)
        codes = [train(through), train(stopped, 5), train(stopped)]
        if codes != [0, 128 + signal.SIGTERM, 0]:
            yield Row("tiny network", f"exit codes {codes}; expected 0, 143 where it was stopped, and 0", False)
            return
        ends = [max((run / "checkpoints").glob("step-*.pt")) for run in (through, stopped)]
        first, second = (
            torch.cat([value.double().flatten().cpu() for value in read_checkpoint(end).model.values()]) for end in ends
        )
    error = float((first - second).norm() / first.norm())
    words = f"stopped and resumed, weights differ by {error:.1e} of their norm, {RESUME_TOLERANCE:g} allowed"
    yield Row("tiny network", words, error <= RESUME_TOLERANCE, {"error": error})


def _train(device: str, config: Path, output: Path, stop_at: int | None = None) -> int | None:
    """Train in a process of its own, which sends itself SIGTERM in the midst of a step; returns its exit code."""
    from tests.helpers.runs import run

    return run(_train_here, device, config, output, stop_at, log=output.with_suffix(".log"))


def _train_here(device: str, config: Path, output: Path, stop_at: int | None) -> int:
    from tests.helpers.runs import train_run

    if device == "cpu":
        os.environ["CUDA_VISIBLE_DEVICES"] = ""
    return train_run(config, [f"output={output}"], stop_at, signal.SIGTERM)
