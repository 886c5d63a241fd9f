"""Make labelled furnished rooms in the layout of processed ScanNet."""

from argparse import ArgumentParser, Namespace
from pathlib import Path

from xmask3d.cli.arguments import FURNITURE_CACHE, add_workers, check_least
from xmask3d.cli.parser import refuse_given
from xmask3d.errors import UserError


def add_arguments(parser: ArgumentParser) -> None:
    """Declare the arguments of `xmask3d rooms`."""
    parser.add_argument("--out", type=Path, required=True, help="folder to write")
    parser.add_argument("--train-rooms", type=int, default=24, metavar="N", help="training rooms (default %(default)s)")
    parser.add_argument("--val-rooms", type=int, default=12, metavar="N", help="validation rooms (default %(default)s)")
    parser.add_argument("--views", type=int, default=24, metavar="N", help="frames per room (default %(default)s)")
    parser.add_argument("--seed", type=int, default=0, help="same seed, same rooms (default %(default)s)")
    parser.add_argument(
        "--furniture",
        default="auto",
        help="auto: the library of Debian's package sweethome3d-furniture (120 MB, fetched once), procedural furniture "
        "where it cannot be had; procedural: no download; or a folder that holds the unpacked library "
        "(default %(default)s)",
    )
    parser.add_argument(
        "--cache",
        type=Path,
        default=FURNITURE_CACHE,
        help="folder where auto keeps the library; sweethome3d-furniture_1.8-1_all.deb put there by hand is used "
        "(default %(default)s)",
    )
    add_workers(parser)


def run(options: Namespace) -> int:
    """Make the rooms."""
    check_least(options, "workers")
    if options.furniture != "auto":
        refuse_given(options, ["cache"], "is for --furniture auto")
        if options.furniture != "procedural" and not Path(options.furniture).is_dir():
            raise UserError(f"--furniture {options.furniture}: no such folder; use auto, procedural or a folder")
    if options.out.is_file():
        raise UserError(f"--out {options.out}: is a file; name a folder")

    from xmask3d.rooms.generate import find_furniture, make_rooms

    furniture = find_furniture(options.furniture, options.cache)
    counts = (options.train_rooms, options.val_rooms, options.views)
    make_rooms(options.out, *counts, options.seed, furniture, options.workers)
    print(
        f"{options.out}: {options.train_rooms} training and {options.val_rooms} validation rooms, {options.views} "
        f"frames each; look at {options.out / 'contact_sheet.png'}"
    )
    return 0
