"""Description of the machine and the rate of its matrix products, so that timings can be judged."""

import os
import platform
import time
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor

_SIZE = 1024
_SECONDS = 0.5


@dataclass(frozen=True)
class Machine:
    """Description of the machine.

    Attributes:
        rates: multiply-adds a second of a dense product, in units of 1e9, by type.
    """

    processor: str
    cores: int
    memory_gib: float
    system: str
    torch: str
    threads: int
    device: str
    load: float
    rates: dict[str, float]


def describe_machine(device: str, threads: int) -> Machine:
    """Describe this machine; takes about a second."""
    torch.set_num_threads(threads)
    name = torch.cuda.get_device_name(device) if device.startswith("cuda") else "cpu"
    pages = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    return Machine(
        processor=_processor(),
        cores=os.cpu_count() or 1,
        memory_gib=round(pages / 2**30, 1),
        system=f"{platform.system()} {platform.release()}, Python {platform.python_version()}",
        torch=torch.__version__,
        threads=threads,
        device=name,
        load=os.getloadavg()[0],
        rates={str(kind).removeprefix("torch."): _rate(device, kind) for kind in (torch.float32, torch.bfloat16)},
    )


def _rate(device: str, kind: torch.dtype) -> float:
    left = torch.randn(_SIZE, _SIZE, device=device).to(kind)
    weight = left.clone()
    _ = left @ weight
    best = float("inf")
    end = time.perf_counter() + _SECONDS
    while time.perf_counter() < end:
        best = min(best, _timed_product(weight, left))
    return round(_SIZE**3 / best / 1e9, 1)


def _timed_product(weight: Tensor, left: Tensor) -> float:
    start = time.perf_counter()
    _ = left @ weight
    if left.is_cuda:
        torch.cuda.synchronize()
    return time.perf_counter() - start


def _processor() -> str:
    information = Path("/proc/cpuinfo")
    if information.exists():
        for line in information.read_text(encoding="utf-8").splitlines():
            if line.startswith("model name"):
                return line.partition(":")[2].strip()
    return platform.processor() or "unknown"
