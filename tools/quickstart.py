"""Build rooms, train, evaluate and draw: what scripts/quickstart.sh runs once everything is installed."""

import argparse
import os
import shlex
import subprocess
import sys
import time
from pathlib import Path

import torch

from xmask3d.config import Config, load_config
from xmask3d.errors import UserError, run_tool
from xmask3d.resources import REPOSITORY

ROOMS = "--train-rooms 90 --val-rooms 12 --views 10 --seed 1"


def step(title: str, command: list[str], environment: dict[str, str] | None = None) -> None:
    """Run one command as a user would and say how long it took."""
    shown = [Path(command[0]).name, *command[1:]]
    print(f"\n== {title}\n$ {' '.join(f'{k}={v}' for k, v in (environment or {}).items())} {shlex.join(shown)}".strip())
    sys.stdout.flush()
    start = time.monotonic()
    code = subprocess.run(command, cwd=REPOSITORY, env=os.environ | (environment or {}), check=False).returncode
    if code:
        raise UserError(f"'{title}' ended with exit code {code}; mend what it says above and start again")
    print(f"-- {time.monotonic() - start:.0f} s", flush=True)


def processes(config: Config) -> dict[str, str]:
    """How many processes train and evaluate, as variables of scripts/train.sh and eval.sh; what is set already stays.

    Two on a CPU of two or more cores: the tensors of a small model gain little from more threads in one process.
    """
    cores = os.cpu_count() or 1
    if "NPROC" in os.environ or torch.cuda.is_available() or cores < 2 or config.train.batch_size % 2:
        return {}
    chosen = {"NPROC": "2", "OMP_NUM_THREADS": str(cores // 2)}
    return {name: os.environ.get(name, value) for name, value in chosen.items()}


def main() -> int:
    """Parse arguments and run the four steps."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("config", type=Path, help="configuration, such as config/rooms/B15N4.yaml")
    parser.add_argument("overrides", nargs="*", help="key=value overrides")
    parser.add_argument("--pictures", default=3, type=int, help="validation rooms to draw")
    arguments = parser.parse_intermixed_args()
    config = load_config(arguments.config, arguments.overrides)
    start = time.monotonic()

    rooms = shlex.split(os.environ.get("XMASK3D_ROOMS", ROOMS))
    step(
        "Rooms: furnished, rendered, labelled",
        [sys.executable, "tools/make_rooms.py", "--out", str(config.data.root), *rooms],
    )
    shared = processes(config)
    step("Training", ["sh", "scripts/train.sh", str(arguments.config), *arguments.overrides], shared)
    step(
        "Evaluation on rooms with unseen furniture",
        [
            *("sh", "scripts/eval.sh", str(arguments.config), "newest"),
            *("--pictures", str(arguments.pictures), *arguments.overrides),
        ],
        shared,
    )
    minutes = (time.monotonic() - start) / 60
    print(f"\nDone in {minutes:.1f} minutes. Tables and pictures are in {config.output / 'evaluation'}.")
    environment = Path(sys.prefix)
    if environment != Path(sys.base_prefix):
        print(f"Next, after '. {shlex.quote(str(environment / 'bin' / 'activate'))}':")
    else:
        print("Next:")
    print("  look at the rooms      " + str(config.data.root / "contact_sheet.png"))
    print("  losses and pictures    tensorboard --logdir " + str(config.output))
    print("  other splits           sh scripts/train.sh config/rooms/B12N7.yaml")
    print("  your own scan          see docs/own_scan.md")
    return 0


if __name__ == "__main__":
    run_tool(main)
