"""Build rooms, train on them, evaluate and draw: what scripts/quickstart.sh runs once everything is installed."""

import os
import shlex
import subprocess
import sys
import time
from argparse import ArgumentParser, Namespace
from typing import TYPE_CHECKING

from xmask3d.cli.arguments import add_overrides, read_config
from xmask3d.errors import UserError

if TYPE_CHECKING:
    from xmask3d.config import Config

ROOMS = "--train-rooms 90 --val-rooms 12 --views 10 --seed 1"


def add_arguments(parser: ArgumentParser) -> None:
    """Declare the arguments of `xmask3d quickstart`."""
    parser.epilog = (
        f"XMASK3D_ROOMS in the environment holds arguments of xmask3d rooms (default: {ROOMS});\n"
        "NPROC is the number of processes that train and evaluate."
    )
    parser.add_argument(
        "config",
        nargs="?",
        default="rooms/B15N4",
        metavar="CONFIG",
        help="configuration (default: rooms/B15N4)",
    )
    add_overrides(parser)
    parser.add_argument("--pictures", default=3, type=int, metavar="N", help="validation rooms to draw (default 3)")


def run(options: Namespace) -> int:
    """Run the three commands, and print the next steps."""
    if "=" in options.config:
        raise UserError(f"'{options.config}': name the configuration before its changes")
    config = read_config(options)
    start = time.monotonic()
    rooms = shlex.split(os.environ.get("XMASK3D_ROOMS", ROOMS))
    asked = [options.config, *options.overrides]
    count = count_processes(config)
    step("Rooms: furnished, rendered, labelled", ["rooms", "--out", str(config.data.root), *rooms])
    step("Training", ["train", *asked], count)
    evaluation = ["evaluate", options.config, "newest", "--pictures", str(options.pictures), *options.overrides]
    step("Evaluation on rooms with unseen furniture", evaluation, count)
    minutes = (time.monotonic() - start) / 60
    print(f"\nDone in {minutes:.1f} minutes. Tables and pictures are in {config.output / 'evaluation'}.")
    activate = os.path.join(sys.prefix, "bin", "activate")
    print(f"Next, after '. {shlex.quote(activate)}':" if sys.prefix != sys.base_prefix else "Next:")
    print(f"  look at the rooms      {config.data.root / 'contact_sheet.png'}")
    print(f"  losses and pictures    tensorboard --logdir {config.output}")
    print("  other splits           xmask3d train rooms/B12N7")
    print("  your own scan          xmask3d segment SCAN --query sofa table; see docs/own_scan.md")
    return 0


def step(title: str, command: list[str], processes: int = 1) -> None:
    """Run a command of `xmask3d` as a user would, and print how long it took.

    Raises:
        UserError: the command failed.
    """
    several = ["--standalone", "--nproc-per-node", str(processes)] if processes > 1 else []
    shown = ["torchrun", *several, "-m", "xmask3d", *command] if several else ["xmask3d", *command]
    print(f"\n== {title}\n$ {shlex.join(shown)}", flush=True)
    launch = ["-m", "xmask3d.cli.launch", *several] if several else []
    environment = dict(os.environ)
    if several:
        environment.setdefault("OMP_NUM_THREADS", str(max(1, (os.cpu_count() or 1) // processes)))
    start = time.monotonic()
    code = subprocess.run([sys.executable, *launch, "-m", "xmask3d", *command], env=environment, check=False).returncode
    if code:
        raise UserError(f"'{title}' ended with exit code {code}; fix what it says above and start again")
    print(f"-- {time.monotonic() - start:.0f} s", flush=True)


def count_processes(config: "Config") -> int:
    """Choose the number of processes: NPROC if set, one per GPU, or two on a CPU with several cores.

    Small models gain little from more threads in a single process.
    """
    asked = os.environ.get("NPROC")
    if asked:
        if not asked.isdigit() or int(asked) < 1:
            raise UserError(f"NPROC={asked}: is a number of processes, 1 or more")
        return int(asked)

    import torch

    if torch.cuda.is_available():
        return torch.cuda.device_count()
    return 2 if (os.cpu_count() or 1) >= 2 and config.train.batch_size % 2 == 0 else 1
