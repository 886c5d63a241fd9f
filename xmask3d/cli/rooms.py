"""Make labelled furnished rooms in the layout of processed ScanNet."""

from argparse import ArgumentParser, Namespace
from pathlib import Path
from typing import TYPE_CHECKING

from xmask3d.cli.arguments import FURNITURE_CACHE, add_workers, check_least
from xmask3d.cli.parser import refuse_given
from xmask3d.errors import UserError

if TYPE_CHECKING:
    from xmask3d.rooms.manifest import FixedSet


def add_arguments(parser: ArgumentParser) -> None:
    """Declare the arguments of `xmask3d rooms`."""
    parser.add_argument("--out", type=Path, required=True, help="folder to write")
    parser.add_argument("--train-rooms", type=int, default=24, metavar="N", help="training rooms (default %(default)s)")
    parser.add_argument("--val-rooms", type=int, default=12, metavar="N", help="validation rooms (default %(default)s)")
    parser.add_argument("--views", type=int, default=24, metavar="N", help="frames per room (default %(default)s)")
    parser.add_argument(
        "--version",
        choices=("v0", "v1"),
        default="v0",
        help="v0: clean rooms; v1: rooms that look like scans, with a depth camera's noise (default %(default)s)",
    )
    parser.add_argument(
        "--benchmark",
        choices=("v1",),
        help="v1: the fixed set rooms-v1, 300 training and 48 validation rooms whose digests come with the program and "
        "are compared; --train-rooms and --val-rooms make fewer of it, --check compares a copy",
    )
    parser.add_argument("--settings", type=Path, metavar="FILE", help="YAML file of settings of v1; docs/rooms.md")
    parser.add_argument(
        "--set", nargs="+", action="extend", default=[], metavar="KEY=VALUE", help="settings of v1, such as clutter=0.5"
    )
    parser.add_argument(
        "--check", action="store_true", help="compare the files of --out with its rooms.json, and make nothing"
    )
    parser.add_argument("--seed", type=int, default=0, help="same seed, same rooms (default %(default)s)")
    parser.add_argument(
        "--furniture",
        default="auto",
        help="auto: the library of Debian's package sweethome3d-furniture (120 MB, fetched once), where it cannot be "
        "had procedural furniture in v0 and an error in v1; procedural: no download; or a folder that holds the "
        "unpacked library (default %(default)s)",
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
    if options.check:
        made = options.given - {"out", "check", "benchmark"}
        refuse_given(options, sorted(made), "makes rooms, and --check makes none")
    if options.out.is_file():
        raise UserError(f"--out {options.out}: is a file; name a folder")
    if options.benchmark:
        fixed = ["version", "settings", "set", "seed", "views"]
        refuse_given(options, fixed, "is fixed in a benchmark set")
        if options.furniture == "procedural":
            raise UserError("--furniture procedural: a benchmark set needs the library's furniture; leave it out")
    elif options.version == "v0":
        refuse_given(options, ["settings", "set"], "is for --version v1")

    from xmask3d.rooms.generate import find_furniture, make_rooms
    from xmask3d.rooms.manifest import FixedSet, check_set
    from xmask3d.rooms.scanned.settings import read_settings

    benchmark = FixedSet.read(options.benchmark) if options.benchmark else None
    if options.check:
        print(f"{options.out}: all files are those of its rooms.json, digest {check_set(options.out)}")
        if benchmark:
            print(f"{options.out}: {benchmark.compare(options.out)}")
        return 0
    if benchmark:
        _apply(benchmark, options)
    settings = None if options.version == "v0" else read_settings(options.settings, options.set)
    furniture = find_furniture(options.furniture, options.cache, required=options.version == "v1")
    counts = (options.train_rooms, options.val_rooms, options.views)
    make_rooms(options.out, *counts, options.seed, furniture, options.workers, settings)
    print(
        f"{options.out}: {options.train_rooms} training and {options.val_rooms} validation rooms, {options.views} "
        f"frames each; look at {options.out / 'contact_sheet.png'}"
    )
    if benchmark:
        print(f"{options.out}: {benchmark.compare(options.out)}")
    return 0


def _apply(benchmark: "FixedSet", options: Namespace) -> None:
    """Set the arguments of a benchmark set, or of the requested number of its rooms."""
    options.version, options.seed, options.views = benchmark.version, benchmark.seed, benchmark.views
    for name in ("train_rooms", "val_rooms"):
        most = getattr(benchmark, name)
        if name not in options.given:
            setattr(options, name, most)
        elif getattr(options, name) > most:
            raise UserError(f"--{name.replace('_', '-')} {getattr(options, name)}: the benchmark set has {most}")
