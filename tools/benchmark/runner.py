"""Run cases, each in a fresh process, so that peak memory and caches are its own."""

import json
import os
import subprocess
import sys
from collections.abc import Callable, Sequence
from dataclasses import asdict, replace
from pathlib import Path

from tools.benchmark import load_part
from tools.benchmark.case import Case, Measurement, Request
from xmask3d import memory
from xmask3d.errors import UserError

_ROOT = Path(__file__).parents[2]


def run_parts(
    parts: Sequence[str], request: Request, report: Callable[[Measurement], None] = lambda measurement: None
) -> list[Measurement]:
    """Measure all cases of some parts, one after the other.

    Args:
        parts: names from `tools.benchmark.PARTS`.
        request: sizes, types and contenders.
        report: called with each measurement as it comes.

    Raises:
        UserError: a contender that none of the parts knows.
    """
    modules = [load_part(part) for part in parts]
    known = {name for module in modules for name in module.CONTENDERS}
    for name in request.against:
        if name not in known:
            choice = ", ".join(sorted(known))
            raise UserError(f"--against: '{name}' is unknown to {', '.join(parts)}; choose from {choice}")
    measurements = []
    for module in modules:
        own = tuple(name for name in request.against if name in module.CONTENDERS)
        for case in module.cases(replace(request, against=own)):
            if any(word not in case.name for word in request.only):
                continue
            measurement = run_case(case, request.interpreters.get(case.contender, sys.executable))
            report(measurement)
            measurements.append(measurement)
    return measurements


def run_case(case: Case, interpreter: str = sys.executable) -> Measurement:
    """Measure a case in a process of its own; an error there becomes the measurement's `failure`."""
    own = {"PYTHONPATH": str(_ROOT), "OMP_NUM_THREADS": str(case.threads)}
    # Freed memory is kept as in training, for every contender alike: page faults are not what is compared.
    environment = {**os.environ, **memory.environment(), **own}
    command = [interpreter, "-m", "tools.benchmark.worker"]
    try:
        done = subprocess.run(
            command, input=json.dumps(asdict(case)), env=environment, capture_output=True, text=True, check=False
        )
    except OSError as error:
        return Measurement(case, failure=f"cannot start {interpreter}: {error.strerror}")
    if done.returncode:
        last = (done.stderr.strip().splitlines() or ["no message"])[-1]
        return Measurement(case, failure=f"ended with code {done.returncode}: {last}")
    result = json.loads(done.stdout.strip().splitlines()[-1])
    for name in ("seconds", "cpu_seconds"):
        result[name] = tuple(result.get(name, ()))
    return Measurement(case, **result)
