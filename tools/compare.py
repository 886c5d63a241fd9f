"""Put evaluations side by side as a Markdown table; runs of one name are averaged."""

import argparse
from pathlib import Path

from xmask3d.errors import UserError, run_tool
from xmask3d.metrics.compare import BRANCHES, markdown, read_row


def main() -> int:
    """Parse arguments and print the table."""
    parser = argparse.ArgumentParser(
        description=__doc__,
        epilog="Example: python tools/compare.py full=runs/seed1,runs/seed2 baseline=runs/baseline",
    )
    parser.add_argument("rows", nargs="+", metavar="NAME=PATH[,PATH]", help="results.json files or run folders")
    parser.add_argument("--branches", nargs="+", choices=BRANCHES, default=list(BRANCHES), help="default: all")
    arguments = parser.parse_args()
    rows = []
    for text in arguments.rows:
        name, equals, paths = text.partition("=")
        if not equals:
            raise UserError(f"'{text}': write NAME=PATH")
        rows.append(read_row(name, [Path(path) for path in paths.split(",")]))
    print(markdown(rows, arguments.branches))
    return 0


if __name__ == "__main__":
    run_tool(main)
