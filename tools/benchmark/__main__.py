"""Time the parts of xmask3d, beside other software where asked for."""

import argparse
import sys
from pathlib import Path

from tools.benchmark import PARTS
from tools.benchmark.case import Measurement, Request
from tools.benchmark.machine import Machine, describe_machine
from tools.benchmark.report import markdown, plot, read_json, write_json
from tools.benchmark.runner import run_parts
from xmask3d.errors import UserError, run_tool


def parse_arguments(arguments: list[str] | None = None) -> argparse.Namespace:
    """Read the command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.ArgumentDefaultsHelpFormatter)
    parser.add_argument("--part", action="append", choices=PARTS, help="part to time, again for more (all)")
    parser.add_argument(
        "--against",
        nargs="+",
        default=[],
        metavar="NAME",
        help="contenders: torch, minkowski, spconv, per-offset (sparse), plain (others), xmask3d-1 (scene)",
    )
    parser.add_argument("--minkowski-python", metavar="PATH", help="interpreter that has MinkowskiEngine")
    sizes = [30_000, 100_000, 200_000]
    parser.add_argument("--voxels", nargs="+", type=int, default=sizes, help="sizes of the sparse part")
    parser.add_argument("--points", nargs="+", type=int, default=[150_000], help="scenes of the parts sample and scene")
    parser.add_argument("--views", nargs="+", type=int, default=[], help="views of decoder, step and scene (by part)")
    parser.add_argument("--types", nargs="+", choices=["float32", "bfloat16"], default=["float32", "bfloat16"])
    parser.add_argument("--only", nargs="+", default=[], metavar="WORD", help="cases whose names hold all these words")
    parser.add_argument("--device", default="cpu", help="torch device")
    parser.add_argument("--threads", type=int, default=1, help="CPU threads")
    parser.add_argument("--repeats", type=int, default=3, help="timed runs of each case")
    parser.add_argument(
        "--merge", nargs="+", type=Path, metavar="FILE", help="time nothing, report what these files of --json hold"
    )
    parser.add_argument("--json", type=Path, metavar="FILE", help="write everything measured")
    parser.add_argument("--markdown", type=Path, metavar="FILE", help="write the table")
    parser.add_argument("--plot", type=Path, metavar="FILE", help="draw the medians")
    return parser.parse_args(arguments)


def main() -> int:
    """Measure and report."""
    options = parse_arguments()
    for name in ("threads", "repeats"):
        if getattr(options, name) < 1:
            raise UserError(f"--{name}: {getattr(options, name)} is less than 1")
    request = Request(
        against=tuple(options.against),
        interpreters={"minkowski": options.minkowski_python} if options.minkowski_python else {},
        voxels=tuple(options.voxels),
        points=tuple(options.points),
        views=tuple(options.views),
        types=tuple(options.types),
        device=options.device,
        threads=options.threads,
        repeats=options.repeats,
        only=tuple(options.only),
    )
    if options.merge:
        machine, measurements = merged(options.merge)
    else:
        machine = describe_machine(options.device, options.threads)
        measurements = run_parts(options.part or PARTS, request, _show)
    table = markdown(machine, measurements)
    print(table)
    if options.json:
        write_json(options.json, machine, measurements)
    if options.markdown:
        options.markdown.write_text(table, encoding="utf-8")
    if options.plot:
        plot(options.plot, measurements)
    return int(any(measurement.failure for measurement in measurements))


def merged(paths: list[Path]) -> tuple[Machine, list[Measurement]]:
    """Merge the measurements of several runs in the order of the files, the last one of each case and contender.

    Raises:
        UserError: see `read_json`; or the machines differ.
    """
    latest: dict[tuple[str, str], Measurement] = {}
    first = None
    for path in paths:
        machine, entries = read_json(path)
        first = first or machine
        for what in ("processor", "cores", "device", "torch", "threads"):
            ours, theirs = getattr(first, what), getattr(machine, what)
            if ours != theirs:
                raise UserError(f"{path}: measured with {what} {theirs}, {paths[0]} with {ours}; these do not compare")
        latest |= {(entry.case.name, entry.case.contender): entry for entry in entries}
    return machine, list(latest.values())


def _show(measurement: Measurement) -> None:
    result = measurement.failure or f"{measurement.median:.3f} s"
    print(f"{measurement.case.name} [{measurement.case.contender}]: {result}", file=sys.stderr, flush=True)


if __name__ == "__main__":
    run_tool(main)
