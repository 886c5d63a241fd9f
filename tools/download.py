"""Download data sets, pre-trained networks and published checkpoints by name; checked, resumable, never twice."""

import argparse
import logging
import os
import sys
from functools import partial
from pathlib import Path

from xmask3d.data.download.items import ITEMS, download, names
from xmask3d.errors import UserError, run_tool
from xmask3d.resources import REPOSITORY
from xmask3d.rooms.package import get_furniture

FURNITURE_CACHE = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "xmask3d" / "furniture"


def parse(arguments: list[str] | None = None) -> argparse.Namespace:
    """Command-line arguments."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("kind", choices=["datasets", "checkpoints"], help="what to download")
    parser.add_argument("names", nargs="*", metavar="NAME", help="which; without names a terminal is asked")
    parser.add_argument("--list", action="store_true", help="print the names and leave")
    parser.add_argument("--data", type=Path, default=REPOSITORY / "data" / "scannet", help="folder for data sets")
    parser.add_argument("--pretrained", type=Path, default=REPOSITORY / "pretrained", help="folder for networks")
    parser.add_argument(
        "--furniture-cache", type=Path, default=FURNITURE_CACHE, help="folder for the furniture (default %(default)s)"
    )
    parser.add_argument("--keep-archives", action="store_true", help="keep archives after unpacking")
    parser.add_argument("--url", help="a mirror to take the one NAME from")
    return parser.parse_args(arguments)


def main() -> int:
    """Download what the command line names."""
    args = parse()
    logging.basicConfig(format="%(message)s")
    offered = names(args.kind)
    if args.list:
        _print_list(offered)
        return 0
    wanted = args.names or _ask(offered)
    unknown = [name for name in wanted if name.lower() not in offered]
    if unknown:
        raise UserError(f"there is no download '{unknown[0]}'; known: {', '.join(offered)}")
    if args.url and len(wanted) != 1:
        raise UserError("--url is for one NAME")
    for name in (name.lower() for name in wanted):
        path = download(
            name,
            args.data,
            args.pretrained,
            keep_archive=args.keep_archives,
            urls=(args.url,) if args.url else None,
            furniture=partial(get_furniture, args.furniture_cache),
        )
        advice = ITEMS[name].advice if name in ITEMS else ""
        print(f"{name}: {path}" + (f"; {advice}" if advice else ""))
    return 0


def _ask(offered: dict[str, str]) -> list[str]:
    _print_list(offered)
    if not sys.stdin.isatty():
        raise UserError("say what to download: give one or more of the names above")
    return input("names, separated by spaces: ").split()


def _print_list(offered: dict[str, str]) -> None:
    for name, about in offered.items():
        print(f"  {name:16} {about}", file=sys.stderr)


if __name__ == "__main__":
    run_tool(main)
