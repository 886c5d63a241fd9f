"""Check and measure everything that a GPU changes: results, training, speed and memory, in ten minutes at most."""

import argparse
import json
import os
import signal
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import asdict, replace
from functools import partial
from pathlib import Path

import torch

from tools.benchmark.machine import describe_machine
from tools.gpu import results, speed
from tools.gpu.report import Row, Settings, markdown
from xmask3d.errors import UserError, run_tool
from xmask3d.resources import REPOSITORY

BUDGET = 600  # seconds for all sections


def _step(*overrides: str) -> Callable[[Settings], Iterator[Row]]:
    return partial(speed.training_step, overrides=overrides)


SECTIONS: dict[str, tuple[Callable[[Settings], Iterator[Row]], int]] = {
    "recorded cases, float32": (results.recorded_cases, 150),
    "recorded cases, bfloat16": (results.low_precision, 60),
    "save and resume": (results.resume, 60),
    "training step": (_step(), 90),
    "training step, checkpointing": (_step("model.checkpointing=true"), 90),
    "training step, bfloat16": (_step("train.precision=bfloat16"), 90),
    "training step, bfloat16, checkpointing": (_step("train.precision=bfloat16", "model.checkpointing=true"), 90),
    "sparse network": (speed.sparse, 120),
    "frozen features": (speed.features, 90),
    "scene of 30 views, networks of Rooms": (speed.scene, 60),
    "scene of 30 views, published network": (speed.published_scene, 90),
}
"""Sections in their order, and the seconds after which each is stopped."""


def parse_arguments(arguments: list[str] | None = None) -> argparse.Namespace:
    """Read the command line."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--device", default="cuda", help="torch device (default %(default)s)")
    parser.add_argument("--small", action="store_true", help="sizes that take seconds, to try the report on a CPU")
    parser.add_argument("--only", nargs="+", metavar="SECTION", choices=SECTIONS, default=list(SECTIONS))
    report = Path("gpu-report")
    parser.add_argument(
        "--report", type=Path, default=report, help="files to write, without .md and .json (default %(default)s)"
    )
    parser.add_argument("--section", choices=SECTIONS, help=argparse.SUPPRESS)  # in a process of the report's own
    return parser.parse_args(arguments)


def main(arguments: list[str] | None = None) -> int:
    """Write the report; 1 if a finding is not as it should be."""
    options = parse_arguments(arguments)
    settings = Settings(options.device, options.small)
    if options.section:
        for row in SECTIONS[options.section][0](settings):
            print(json.dumps(asdict(row)), flush=True)
        return 0
    if settings.device.startswith("cuda") and not torch.cuda.is_available():
        raise UserError("no GPU that torch can use (xmask3d doctor says why); --device cpu --small tries the report")
    machine = describe_machine(settings.device, torch.get_num_threads())
    rows: list[Row] = []
    end = time.monotonic() + BUDGET
    for name in options.only:
        left = end - time.monotonic()
        print(f"{name} ({max(left, 0) / 60:.0f} minutes left)", file=sys.stderr, flush=True)
        for row in run_section(name, settings, min(left, SECTIONS[name][1])):
            print(f"    {row.case}: {row.result}", file=sys.stderr, flush=True)
            rows.append(row)
        # After each section, so that a report that is stopped leaves what it has.
        table = markdown(machine, rows)
        Path(f"{options.report}.md").write_text(table, encoding="utf-8")
        content = {"machine": asdict(machine), "rows": [asdict(row) for row in rows]}
        Path(f"{options.report}.json").write_text(json.dumps(content, indent=1) + "\n", encoding="utf-8")
    print(table)
    return int(any(row.good is False for row in rows))


def run_section(name: str, settings: Settings, seconds: float) -> Iterator[Row]:
    """Yield the rows of a section as its process finds them, and a last one where that failed or was stopped."""
    if seconds < 1:
        yield Row("all", "left out: no time was left", False, section=name)
        return
    command = [sys.executable, "-m", "tools.gpu", "--section", name, "--device", settings.device]
    command += ["--small"] * settings.small
    with tempfile.TemporaryFile("w+", encoding="utf-8") as errors:
        process = subprocess.Popen(
            command, cwd=REPOSITORY, stdout=subprocess.PIPE, stderr=errors, text=True, start_new_session=True
        )
        start = time.monotonic()
        late = threading.Timer(seconds, os.killpg, (process.pid, signal.SIGKILL))  # those that it started, too
        late.start()
        try:
            for line in process.stdout or ():
                if line.startswith("{"):
                    yield replace(Row(**json.loads(line)), section=name)
            code = process.wait()
        finally:
            late.cancel()
            if process.poll() is None:  # the report itself was stopped
                os.killpg(process.pid, signal.SIGKILL)
        errors.seek(0)
        last = (errors.read().strip().splitlines() or ["no message"])[-1]
    if code == -signal.SIGKILL and time.monotonic() - start >= seconds:
        yield Row("the rest", f"stopped after {seconds:.0f} s", False, section=name)
    elif code:
        yield Row("the rest", f"ended with code {code}: {last[:300]}", False, section=name)


if __name__ == "__main__":
    run_tool(main)
