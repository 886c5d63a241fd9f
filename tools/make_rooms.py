"""Make labelled furnished rooms in the layout of processed ScanNet."""

import argparse
import os
from pathlib import Path

from xmask3d.errors import UserError, run_tool
from xmask3d.rooms.generate import find_furniture, make_rooms
from xmask3d.rooms.package import FILE

CACHE = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "xmask3d" / "furniture"


def parse(arguments: list[str] | None = None) -> argparse.Namespace:
    """Command-line arguments."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--out", type=Path, required=True, help="folder to write")
    parser.add_argument("--train-rooms", type=int, default=24, help="training rooms (default %(default)s)")
    parser.add_argument("--val-rooms", type=int, default=12, help="validation rooms (default %(default)s)")
    parser.add_argument("--views", type=int, default=24, help="frames per room (default %(default)s)")
    parser.add_argument("--seed", type=int, default=0, help="same seed, same rooms (default %(default)s)")
    parser.add_argument(
        "--furniture",
        default="auto",
        help="auto: the library of Debian's package sweethome3d-furniture (120 MB, fetched once), procedural "
        "furniture where it cannot be had; procedural: no download; or a folder that holds the unpacked "
        "library (default %(default)s)",
    )
    parser.add_argument(
        "--cache",
        type=Path,
        default=CACHE,
        help=f"where auto keeps the library; {FILE} put there by hand is used (default %(default)s)",
    )
    parser.add_argument("--workers", type=int, default=os.cpu_count() or 1, help="processes (default: one a core)")
    return parser.parse_args(arguments)


def main() -> None:
    """Make the rooms that the command line asks for."""
    args = parse()
    if args.workers < 1:
        raise UserError(f"--workers {args.workers}: use 1 or more")
    furniture = find_furniture(args.furniture, args.cache)
    make_rooms(args.out, args.train_rooms, args.val_rooms, args.views, args.seed, furniture, args.workers)
    print(
        f"{args.out}: {args.train_rooms} training and {args.val_rooms} validation rooms, {args.views} frames each; "
        f"look at {args.out / 'contact_sheet.png'}"
    )


if __name__ == "__main__":
    run_tool(main)
