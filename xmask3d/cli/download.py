"""Download data sets, pre-trained networks and published checkpoints by name; checked, resumable, never twice."""

import logging
import sys
from argparse import ArgumentParser, Namespace
from functools import partial
from pathlib import Path

from xmask3d.cli.arguments import FURNITURE_CACHE
from xmask3d.cli.parser import refuse_given
from xmask3d.errors import UserError

FURNITURE = "furniture"


def add_arguments(parser: ArgumentParser) -> None:
    """Declare the arguments of `xmask3d download`."""
    parser.add_argument("names", nargs="*", metavar="NAME", help="downloads; without names a terminal is asked")
    parser.add_argument("--list", action="store_true", help="print the names and leave")
    parser.add_argument("--data", type=Path, help="folder for data sets (default: data/scannet)")
    parser.add_argument("--pretrained", type=Path, help="folder for networks and checkpoints (default: pretrained)")
    parser.add_argument(
        "--furniture-cache", type=Path, default=FURNITURE_CACHE, help="folder for the furniture (default %(default)s)"
    )
    parser.add_argument("--keep-archives", action="store_true", help="keep archives after unpacking")
    parser.add_argument("--url", help="mirror to take the one NAME from")


def run(options: Namespace) -> int:
    """Download the items named on the command line."""
    from xmask3d.data.download.items import ITEMS, download, names
    from xmask3d.resources import IS_CHECKOUT, REPOSITORY
    from xmask3d.rooms.package import get_furniture

    logging.basicConfig(format="%(message)s")
    offered = names("datasets") | names("checkpoints")
    if options.list and not options.names:
        _print_list(offered)
        return 0
    if options.list:
        raise UserError("--list prints every name; give it without names")
    wanted = [name.lower() for name in options.names or _ask(offered)]
    unknown = [name for name in wanted if name not in offered]
    if unknown:
        raise UserError(f"there is no download '{unknown[0]}'; known: {', '.join(offered)}")
    if options.url and (len(wanted) != 1 or wanted[0] == FURNITURE):
        raise UserError("--url is for one NAME, and not for the furniture")
    items = [ITEMS[name] for name in wanted if name in ITEMS]
    for option, used in (
        ("furniture_cache", FURNITURE in wanted),
        ("data", any(item.folder == "data" for item in items)),
        ("pretrained", any(item.folder == "pretrained" for item in items)),
        ("keep_archives", any(item.unpacked for item in items)),
    ):
        if not used:
            refuse_given(options, [option], f"has no effect on {' '.join(wanted)}")
    home = REPOSITORY if IS_CHECKOUT else Path()
    for name in wanted:
        path = download(
            name,
            options.data or home / "data" / "scannet",
            options.pretrained or home / "pretrained",
            keep_archive=options.keep_archives,
            urls=(options.url,) if options.url else None,
            furniture=partial(get_furniture, options.furniture_cache),
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
