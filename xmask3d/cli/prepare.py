"""Bring raw ScanNet, or the release of another data set, into the layout that training and evaluation read.

Needs, per ScanNet scene: <scene>_vh_clean_2.ply, and for labels <scene>_vh_clean_2.labels.ply, for the 200 classes
<scene>.aggregation.json and <scene>_vh_clean_2.0.010000.segs.json, for frames <scene>.sens and
<scene>_2d-label-filt.zip. Run it again after an interruption, or when more of these have come; what is done is skipped.
"""

import sys
from argparse import ArgumentParser, Namespace
from collections import Counter
from pathlib import Path

from xmask3d.cli.arguments import add_workers, check_least
from xmask3d.cli.parser import refuse_given
from xmask3d.errors import UserError

DATASETS = ("scannetpp", "matterport", "arkitscenes", "replica")


def add_arguments(parser: ArgumentParser) -> None:
    """Declare the arguments of `xmask3d prepare`."""
    parser.add_argument(
        "dataset", nargs="?", metavar="NAME", choices=DATASETS,
        help=f"data set: {', '.join(DATASETS)} (default: ScanNet)",
    )  # fmt: skip
    parser.add_argument("raw", type=Path, help="folder of the raw release (it has scans/ or Area_1/ ...)")
    parser.add_argument("out", type=Path, help="folder of the processed layout, such as data/scannet")
    parser.add_argument("--train-list", type=Path, metavar="FILE", help="file with the training scenes, one a line")
    parser.add_argument("--val-list", type=Path, metavar="FILE", help="file with the validation scenes")
    parser.add_argument("--test-list", type=Path, metavar="FILE", help="file with test scenes (without labels)")
    parser.add_argument(
        "--labels", type=Path, metavar="FILE", help="table of labels (default: RAW/scannetv2-labels.combined.tsv)"
    )
    parser.add_argument(
        "--step",
        type=int,
        metavar="N",
        help="export every n-th frame (default: 20; scannetpp 60, arkitscenes 10, matterport 1)",
    )
    parser.add_argument(
        "--as-published",
        action="store_true",
        help="make colour pictures as those of the published archives: by nearest neighbour, in JPEG quality 75",
    )
    add_workers(parser)
    parser.add_argument(
        "--frames",
        type=Path,
        metavar="FOLDER",
        help="with NAME: folder of the frames where they are apart, as those rendered of Replica are (default: RAW)",
    )
    parser.add_argument("--s3dis", action="store_true", help="RAW is S3DIS; area 5 becomes val, the others train")


def run(options: Namespace) -> int:
    """Prepare every scene named on the command line; return 1 if one failed."""
    check_least(options, "step", "workers")
    if not options.raw.is_dir():
        raise UserError(f"{options.raw}: no such folder; name that of the raw release")
    if options.dataset:
        refuse_given(options, ["labels", "as_published", "s3dis"], "is for ScanNet or S3DIS, given without NAME")
        return _release(options)
    refuse_given(options, ["frames"], "is for the data sets that NAME names")
    if options.s3dis:
        scannet_only = ["train_list", "val_list", "test_list", "labels", "step", "as_published"]
        refuse_given(options, scannet_only, "is for ScanNet, not for S3DIS")
        return _s3dis(options)
    return _scannet(options)


def _lists(options: Namespace) -> dict[str, list[str]]:
    """Read the lists that the command line names, by their split."""
    from xmask3d.data.prepare.many import read_list

    files = {"train": options.train_list, "val": options.val_list, "test": options.test_list}
    lists = {split: read_list(path) for split, path in files.items() if path}
    twice = [name for name, count in Counter(name for names in lists.values() for name in names).items() if count > 1]
    if twice:
        raise UserError(f"scene {twice[0]} is in two lists, or twice in one")
    return lists


def _release(options: Namespace) -> int:
    from xmask3d.data.prepare.many import run_all
    from xmask3d.datasets.prepare import DATASETS, STEPS, prepare

    scenes = DATASETS[options.dataset].find_scenes(options.raw, _lists(options))
    if not scenes:
        raise UserError(
            f"{options.raw}: no scenes of {options.dataset}, or no lists of its splits there; docs/benchmarks.md says "
            "which files are read, --train-list and --val-list name scenes"
        )
    step, frames = options.step or STEPS[options.dataset], options.frames or options.raw
    jobs = [(options.dataset, options.raw, options.out, frames, split, name, step) for name, split in scenes.items()]
    failures = skipped = 0
    for job, result in run_all(prepare, jobs, options.workers):
        failures, skipped = failures + isinstance(result, UserError), skipped + (result is None)
        if isinstance(result, UserError):
            print(f"failed: {result}", file=sys.stderr)
        for note in result if isinstance(result, list) else ():
            print(f"{job[5]}: {note}", file=sys.stderr)
    print(f"{options.out}: {len(jobs) - failures} scenes ready ({skipped} from before), {failures} failed")
    return 1 if failures else 0


def _scannet(options: Namespace) -> int:
    from xmask3d.data.prepare.many import run_all

    scenes = [(name, split) for split, names in _lists(options).items() for name in names]
    if not scenes:
        raise UserError("give --train-list and --val-list: the official scannetv2_train.txt and scannetv2_val.txt")
    table = options.labels or options.raw / "scannetv2-labels.combined.tsv"
    if not table.is_file():
        raise UserError(f"{table}: missing; it comes with raw ScanNet, or name it with --labels")

    from xmask3d.data.prepare.raw_scannet import Settings, prepare_scene

    step = 20 if options.step is None else options.step
    settings = Settings(options.raw, options.out, table, step, as_published=options.as_published)
    failures = done = skipped = lacking = 0
    for _, result in run_all(prepare_scene, ((name, split, settings) for name, split in scenes), options.workers):
        if isinstance(result, UserError):
            failures += 1
            print(f"failed: {result}", file=sys.stderr)
            continue
        done, skipped = done + 1, skipped + result.skipped
        lacking += result.skipped and bool(result.notes)
        for note in result.notes if not result.skipped else []:
            print(f"{result.scene}: {note}", file=sys.stderr)
    before = f" ({skipped} from before, {lacking} of them with parts left out)" if skipped else ""
    print(f"{options.out}: {done} scenes ready{before}, {failures} failed")
    return 1 if failures else 0


def _s3dis(options: Namespace) -> int:
    from xmask3d.data.prepare.many import run_all
    from xmask3d.data.prepare.s3dis import find_rooms, prepare_room

    failures = 0
    rooms = find_rooms(options.raw)
    for _, result in run_all(prepare_room, ((room, options.out) for room in rooms), options.workers):
        if isinstance(result, UserError):
            failures += 1
            print(f"failed: {result}", file=sys.stderr)
    print(f"{options.out}: {len(rooms) - failures} rooms ready, {failures} failed")
    return 1 if failures else 0
