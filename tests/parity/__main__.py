"""Compare every part of the package, under stand-in weights, with numbers recorded of the published implementation."""

import argparse
import sys
from pathlib import Path

from tests.parity.run import RUNNERS, find_cases, run_case
from xmask3d.errors import run_tool


def main() -> int:
    """Exit code 0 if all cases pass, 1 if one fails, 2 if one is unknown."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("folder", type=Path, help="folder of cases, each a folder with inputs.npz and outputs.npz")
    parser.add_argument("--case", help=f"run only this one; known: {', '.join(RUNNERS)}")
    arguments = parser.parse_args()
    if arguments.case is not None and arguments.case not in RUNNERS:
        print(f"error: unknown case '{arguments.case}'; known: {', '.join(RUNNERS)}", file=sys.stderr)
        return 2
    unknown, failed = [], []
    for folder in find_cases(arguments.folder.resolve(), arguments.case):
        if folder.name not in RUNNERS:
            unknown.append(folder.name)
            print(f"UNKNOWN  {folder.name}: no such case; known: {', '.join(RUNNERS)}", flush=True)
            continue
        report = run_case(folder)
        print("\n".join(report.lines()), flush=True)
        if not report.passed:
            failed.append(folder.name)
    if failed:
        print(f"failed: {', '.join(failed)}")
        return 1
    return 2 if unknown else 0


if __name__ == "__main__":
    run_tool(main)
