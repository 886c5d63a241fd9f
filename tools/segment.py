"""Segment a scan by any words; the same as `xmask3d segment`."""

import argparse
import sys

from xmask3d.cli.main import add_segment, join_up
from xmask3d.errors import run_tool


def main() -> int:
    """Parse arguments and segment."""
    parser = argparse.ArgumentParser(description=__doc__)
    add_segment(parser)
    options = parser.parse_args(join_up(sys.argv[1:]))
    return options.command(options)


if __name__ == "__main__":
    run_tool(main)
