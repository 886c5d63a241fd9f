"""Bring raw ScanNet (or the text release of S3DIS) into the layout that training and evaluation read.

Needs, per ScanNet scene: <scene>_vh_clean_2.ply, and for labels <scene>_vh_clean_2.labels.ply, for the 200 classes
<scene>.aggregation.json and <scene>_vh_clean_2.0.010000.segs.json, for frames <scene>.sens and
<scene>_2d-label-filt.zip. Run it again after an interruption, or when more of these have come; what is done is skipped.
"""

import argparse
import os
import sys
from collections import Counter
from pathlib import Path

from xmask3d.data.prepare.many import read_list, run_all
from xmask3d.data.prepare.raw_scannet import Settings, prepare_scene
from xmask3d.data.prepare.s3dis import find_rooms, prepare_room
from xmask3d.errors import UserError, run_tool


def parse(arguments: list[str] | None = None) -> argparse.Namespace:
    """Command-line arguments."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("raw", type=Path, help="folder of the raw release (it has scans/ or Area_1/ ...)")
    parser.add_argument("out", type=Path, help="folder of the processed layout, such as data/scannet")
    parser.add_argument("--train-list", type=Path, help="file with the training scenes, one a line")
    parser.add_argument("--val-list", type=Path, help="file with the validation scenes")
    parser.add_argument("--test-list", type=Path, help="file with test scenes (without labels)")
    parser.add_argument("--labels", type=Path, help="default: RAW/scannetv2-labels.combined.tsv")
    parser.add_argument("--step", type=int, default=20, help="export every n-th frame (default %(default)s)")
    parser.add_argument("--workers", type=int, default=os.cpu_count() or 1, help="processes (default: one a core)")
    parser.add_argument("--s3dis", action="store_true", help="RAW is S3DIS; area 5 becomes val, the others train")
    return parser.parse_args(arguments)


def main() -> int:
    """Prepare every scene that the command line names; 1 if one failed."""
    args = parse()
    if args.step < 1 or args.workers < 1:
        raise UserError("--step and --workers are 1 or more")
    return _s3dis(args) if args.s3dis else _scannet(args)


def _scannet(args: argparse.Namespace) -> int:
    lists = {"train": args.train_list, "val": args.val_list, "test": args.test_list}
    scenes = [(name, split) for split, path in lists.items() if path for name in read_list(path)]
    if not scenes:
        raise UserError("give --train-list and --val-list: the official scannetv2_train.txt and scannetv2_val.txt")
    twice = [name for name, count in Counter(name for name, _ in scenes).items() if count > 1]
    if twice:
        raise UserError(f"scene {twice[0]} is in two lists, or twice in one")
    table = args.labels or args.raw / "scannetv2-labels.combined.tsv"
    if not table.is_file():
        raise UserError(f"{table}: missing; it comes with raw ScanNet, or name it with --labels")
    settings = Settings(args.raw, args.out, table, args.step)
    failures = done = skipped = lacking = 0
    for _, result in run_all(prepare_scene, ((name, split, settings) for name, split in scenes), args.workers):
        if isinstance(result, UserError):
            failures += 1
            print(f"failed: {result}", file=sys.stderr)
            continue
        done, skipped = done + 1, skipped + result.skipped
        lacking += result.skipped and bool(result.notes)
        for note in result.notes if not result.skipped else []:
            print(f"{result.scene}: {note}", file=sys.stderr)
    before = f" ({skipped} from before, {lacking} of them with parts left out)" if skipped else ""
    print(f"{args.out}: {done} scenes ready{before}, {failures} failed")
    return 1 if failures else 0


def _s3dis(args: argparse.Namespace) -> int:
    failures = 0
    rooms = find_rooms(args.raw)
    for _, result in run_all(prepare_room, ((room, args.out) for room in rooms), args.workers):
        if isinstance(result, UserError):
            failures += 1
            print(f"failed: {result}", file=sys.stderr)
    print(f"{args.out}: {len(rooms) - failures} rooms ready, {failures} failed")
    return 1 if failures else 0


if __name__ == "__main__":
    run_tool(main)
