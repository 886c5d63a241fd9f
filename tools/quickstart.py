"""Build rooms, train, evaluate and draw: what scripts/quickstart.sh runs once everything is installed."""

import argparse
import os
import shlex
import subprocess
import sys
import time
from pathlib import Path

from xmask3d.config import REPOSITORY, load_config
from xmask3d.errors import UserError, run_tool

ROOMS = "--train-rooms 48 --val-rooms 12 --views 16 --seed 1"


def step(title: str, tool: str, arguments: list[str]) -> None:
    """Run one tool as a user would and say how long it took."""
    command = [sys.executable, f"tools/{tool}", *arguments]
    print(f"\n== {title}\n$ python {shlex.join(command[1:])}", flush=True)
    start = time.monotonic()
    code = subprocess.run(command, cwd=REPOSITORY, check=False).returncode
    if code:
        raise UserError(f"'{title}' ended with exit code {code}; mend what it says above and start again")
    print(f"-- {time.monotonic() - start:.0f} s", flush=True)


def main() -> int:
    """Parse arguments and run the four steps."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("config", type=Path, help="configuration, such as config/rooms/B15N4.yaml")
    parser.add_argument("overrides", nargs="*", help="key=value overrides")
    parser.add_argument("--pictures", default=3, type=int, help="validation rooms to draw")
    arguments = parser.parse_args()
    config = load_config(arguments.config, arguments.overrides)
    start = time.monotonic()

    rooms = shlex.split(os.environ.get("XMASK3D_ROOMS", ROOMS))
    step("Rooms: furnished, rendered, labelled", "make_rooms.py", ["--out", str(config.data.root), *rooms])
    step("Training", "train.py", [str(arguments.config), *arguments.overrides])
    step(
        "Evaluation on rooms with unseen furniture",
        "test.py",
        [str(arguments.config), "newest", "--pictures", str(arguments.pictures), *arguments.overrides],
    )
    minutes = (time.monotonic() - start) / 60
    print(f"\nDone in {minutes:.1f} minutes. Tables and pictures are in {config.output / 'evaluation'}.")
    print("Next:")
    print("  look at the rooms      " + str(config.data.root / "contact_sheet.png"))
    print("  losses and pictures    tensorboard --logdir " + str(config.output))
    print("  other splits           sh scripts/train.sh config/rooms/B12N7.yaml")
    print("  your own scan          see docs/own_scan.md")
    return 0


if __name__ == "__main__":
    run_tool(main)
