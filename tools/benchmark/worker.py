"""Process that makes one measurement: reads a case as JSON, writes the measurement as its last line."""

import json
import os
import resource
import sys
import time
from contextlib import nullcontext, suppress
from pathlib import Path

import torch
from torch.utils.flop_counter import FlopCounterMode

from tools.benchmark import load_part
from tools.benchmark.case import Case, Job
from xmask3d.errors import UserError


def measure(case: Case) -> dict[str, object]:
    """Prepare and time a case in this process."""
    torch.set_num_threads(case.threads)
    job: Job = load_part(case.part).prepare(case)
    cuda = case.device.startswith("cuda")
    with FlopCounterMode(display=False) if job.count else nullcontext() as counter:
        job.run()
    counted = counter.get_total_flops() // 2 if counter else 0
    if cuda:
        torch.cuda.synchronize()
        torch.cuda.reset_peak_memory_stats()
    else:
        _reset_resident_peak()
    runs = [_timed(job, cuda) for _ in range(case.repeats)]
    peak = torch.cuda.max_memory_allocated() if cuda else _resident_peak()
    return {
        "seconds": [wall for wall, _ in runs],
        "cpu_seconds": [processor for _, processor in runs],
        "peak_bytes": peak,
        "operations": job.operations + counted,
        "load": os.getloadavg()[0],
    }


def _timed(job: Job, cuda: bool) -> tuple[float, float]:
    wall, processor = time.perf_counter(), time.process_time()
    job.run()
    if cuda:
        torch.cuda.synchronize()
    return time.perf_counter() - wall, time.process_time() - processor


def _reset_resident_peak() -> None:
    """Reset the memory peak after preparation and the counted run, as on a GPU; Linux only."""
    with suppress(OSError):
        Path("/proc/self/clear_refs").write_text("5", encoding="utf-8")


def _resident_peak() -> int:
    """Return the largest resident memory of the process, bytes."""
    with suppress(OSError, StopIteration, ValueError):
        lines = Path("/proc/self/status").read_text(encoding="utf-8").splitlines()
        return int(next(line for line in lines if line.startswith("VmHWM:")).split()[1]) * 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024


if __name__ == "__main__":
    try:
        result = measure(Case(**json.load(sys.stdin)))
    except UserError as error:
        result = {"failure": str(error)}
    print(json.dumps(result))
