"""Settings of the report, its rows, and their table."""

from collections.abc import Sequence
from dataclasses import dataclass, field

import torch

from tools.benchmark.machine import Machine


@dataclass(frozen=True)
class Settings:
    """Decisions about a report.

    Attributes:
        device: torch device.
        small: use sizes that take seconds on a CPU.
    """

    device: str
    small: bool = False


@dataclass(frozen=True)
class Row:
    """Finding of a section.

    Attributes:
        case: object of the finding.
        result: the finding in words.
        good: whether it is as it should be; None for a measurement that nothing is asked of.
        numbers: measured values by name, unrounded, for the JSON file.
        section: name of the section.
    """

    case: str
    result: str
    good: bool | None = None
    numbers: dict[str, float] = field(default_factory=dict)
    section: str = ""

    def line(self) -> str:
        """Format it as a row of the table."""
        verdict = {True: "ok", False: "FAILED", None: ""}[self.good]
        cells = (self.section, self.case, self.result, verdict)
        return "| " + " | ".join(cell.replace("|", "/") for cell in cells) + " |"


def markdown(machine: Machine, rows: Sequence[Row]) -> str:
    """Format a description of the machine and a row per finding as Markdown."""
    rates = ", ".join(f"{kind} {rate:,.0f}" for kind, rate in machine.rates.items())
    lines = [
        f"Machine: {describe_device(machine)}; {machine.processor}, {machine.cores} cores, {machine.memory_gib} GiB; "
        f"{machine.system}; torch {machine.torch}. Dense products reach (GMAC/s): {rates}.",
        "",
        "| section | case | result | |",
        "|---|---|---|---|",
        *(row.line() for row in rows),
    ]
    return "\n".join(lines) + "\n"


def describe_device(machine: Machine) -> str:
    """Describe the device, with the versions of what computes on it."""
    if machine.device == "cpu":
        return "no GPU"
    properties, version = torch.cuda.get_device_properties(0), torch.backends.cudnn.version()
    return (
        f"{machine.device}, {properties.total_memory / 2**30:.0f} GiB, compute capability "
        f"{properties.major}.{properties.minor}, CUDA {torch.version.cuda}, cuDNN {version}"
    )
