"""Registry of the commands of `xmask3d`: name, purpose and module of each.

This module is plain Python, so that `xmask3d --help` and mistyped commands are answered without importing any command.
"""

import difflib
from argparse import Namespace
from importlib import import_module
from typing import Protocol, cast

from xmask3d import __version__
from xmask3d.cli.parser import CommandParser
from xmask3d.errors import UserError

GROUPS: dict[str, dict[str, str]] = {
    "your own scans": {
        "segment": "label a scan by any words",
        "query": "ask saved features further words",
        "view": "look at a result or a scan in the browser",
        "info": "describe a scan and what is odd about it",
    },
    "training and evaluation": {
        "quickstart": "build rooms, train on them, evaluate, draw",
        "train": "train, or resume, the run of a configuration",
        "evaluate": "score a checkpoint, or files of predictions, on a benchmark",
        "ablate": "train and evaluate variants with several seeds, tabulate them",
        "compare": "put evaluations and scored predictions side by side",
        "convert": "convert a checkpoint from one format to another",
        "export": "write a result as other programs take it, or a trained model",
    },
    "data and weights": {
        "download": "download data sets, networks and checkpoints by name",
        "rooms": "make the embedded data set, labelled furnished rooms",
        "prepare": "bring raw ScanNet or another data set into the layout that is read",
        "caption": "write a sentence about every view",
        "check": "check the data and the weights of a configuration",
    },
    "this installation": {
        "doctor": "show what this machine has, and what to do about the rest",
        "config": "show every configuration key with its default",
        "completion": "print a completion script for bash, zsh or fish",
    },
}
COMMANDS = {name: about for group in GROUPS.values() for name, about in group.items()}

EXAMPLES = """examples:
  xmask3d segment my_scan/ --query "sofa|couch" "potted plant" --background wall floor
  xmask3d query segmented/my_scan "red chair"
  xmask3d train config/rooms/B15N4.yaml train.epochs=2
  xmask3d evaluate config/rooms/B15N4.yaml newest"""


class Command(Protocol):
    """Interface of a command's module."""

    def add_arguments(self, parser: CommandParser) -> None:
        """Declare the arguments, without slow imports."""

    def run(self, options: Namespace) -> int:
        """Run the command and return the exit code. Raises `UserError` for a mistake in the request."""


def load_command(name: str) -> Command:
    """Import the module of a command, `xmask3d.cli.<name>`.

    Raises:
        UserError: there is no such command; the message names the nearest one.
    """
    if name not in COMMANDS:
        near = difflib.get_close_matches(name, COMMANDS, 1)
        hint = f"did you mean '{near[0]}'?" if near else f"known: {', '.join(COMMANDS)}"
        raise UserError(f"unknown command '{name}'; {hint}")
    return cast(Command, import_module(f"xmask3d.cli.{name}"))


def make_parser(name: str) -> CommandParser:
    """Make the parser of a command. Raises `UserError` as `load_command` does."""
    command = load_command(name)
    parser = CommandParser(prog=f"xmask3d {name}", description=command.__doc__)
    command.add_arguments(parser)
    return parser


def overview() -> str:
    """Describe the commands, for `xmask3d --help`."""
    lines = [f"xmask3d {__version__}: open-vocabulary 3D segmentation", "", "usage: xmask3d COMMAND ...", ""]
    for title, group in GROUPS.items():
        lines += [f"{title}:", *(f"  {name:12}{about}" for name, about in group.items()), ""]
    return "\n".join([*lines, EXAMPLES, "", "xmask3d COMMAND --help describes a command."])
