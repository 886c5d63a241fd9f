"""Put evaluations and scored predictions side by side as a Markdown table; runs of one name are averaged."""

from argparse import ArgumentParser, Namespace
from pathlib import Path

from xmask3d.errors import UserError

BRANCHES = ("fused", "2d", "3d")


def add_arguments(parser: ArgumentParser) -> None:
    """Declare the arguments of `xmask3d compare`."""
    parser.epilog = "example: xmask3d compare full=runs/seed1,runs/seed2 baseline=runs/baseline"
    parser.add_argument("rows", nargs="+", metavar="NAME=PATH[,PATH]", help="results.json files or run folders")
    parser.add_argument(
        "--branches", nargs="+", action="extend", choices=BRANCHES, help="features to tabulate (default: all)"
    )


def run(options: Namespace) -> int:
    """Print the table."""
    from xmask3d.metrics.compare import check_comparable, many_scenes, markdown, paired, read_row

    rows = []
    for text in options.rows:
        name, equals, paths = text.partition("=")
        if not equals or not all(paths.split(",")):
            raise UserError(f"'{text}': write NAME=PATH, or NAME=PATH,PATH")
        rows.append(read_row(name, [Path(path) for path in paths.split(",")]))
    check_comparable(rows)
    print(markdown(rows, options.branches or list(BRANCHES)))
    for other in rows[1:] if many_scenes(rows) else []:
        print()
        try:
            print("\n".join(paired(rows[0], other)))
        except UserError as error:  # only the results, without the counts behind them
            print(f"no interval of the difference: {error}")
    return 0
