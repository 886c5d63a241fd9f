"""Describe a scan: its kind, how it is read, and what is odd about it."""

from argparse import ArgumentParser, Namespace
from pathlib import Path

from xmask3d.cli.arguments import SCAN, add_reading, named_scan, reading_options


def add_arguments(parser: ArgumentParser) -> None:
    """Declare the arguments of `xmask3d info`."""
    parser.add_argument("scan", type=Path, help=SCAN)
    add_reading(parser)


def run(options: Namespace) -> int:
    """Print the description."""
    from xmask3d.scan.scan import open_scan

    print(open_scan(named_scan(options.scan), reading_options(options)).describe())
    return 0
