"""Look through the data of a configuration: counts, sizes, labels, visible points, and every bad or missing file."""

import argparse
import os
import sys

from xmask3d.build import build_reader, training_view_settings
from xmask3d.config import load_config
from xmask3d.data.check import check_split, describe, published_scenes
from xmask3d.data.scannet import ScanNetReader
from xmask3d.errors import UserError, run_tool
from xmask3d.splits import load_benchmark


def parse(arguments: list[str] | None = None) -> argparse.Namespace:
    """Command-line arguments."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("config", help="YAML file, such as config/scannet/B15N4.yaml")
    parser.add_argument("overrides", nargs="*", metavar="key=value", help="changes, such as data.root=/scans")
    parser.add_argument("--views", type=int, help="look at this many views a scene only (default: all)")
    parser.add_argument("--workers", type=int, default=os.cpu_count() or 1, help="processes (default: one a core)")
    return parser.parse_intermixed_args(arguments)


def main() -> int:
    """Check both splits; 1 if anything is wrong."""
    args = parse()
    for option, value in (("--views", args.views), ("--workers", args.workers)):
        if value is not None and value < 1:
            raise UserError(f"{option} {value}: give at least 1, or leave it out")
    config = load_config(args.config, args.overrides)
    benchmark, data, loss = load_benchmark(config.benchmark), config.data, config.loss
    settings = training_view_settings(config, benchmark)
    captions = any((loss.caption_fused, loss.caption_3d, loss.caption_2d))
    bad = doubtful = 0
    for split in dict.fromkeys((data.train_split, data.val_split)):
        reader = build_reader(config, benchmark, split)
        if not isinstance(reader, ScanNetReader):
            raise UserError(f"data.layout: {data.layout} has files of its own; only ScanNet's layout can be checked")
        training = split == data.train_split
        report = check_split(
            reader,
            settings,
            max_views=args.views,
            workers=args.workers,
            training=training,
            captions=training and captions,
            published=published_scenes(reader),
        )
        print(f"{split}:\n{describe(report, benchmark)}", flush=True)
        for warning in report.warnings:
            print(f"  warning: {warning}", flush=True)
        for problem in report.problems:
            print(f"{split}: {problem}", file=sys.stderr)
        bad += len(report.problems)
        doubtful += len(report.warnings)
    print((f"{bad} problems" if bad else "nothing wrong") + (f", {doubtful} warnings" if doubtful else ""))
    return 1 if bad else 0


if __name__ == "__main__":
    run_tool(main)
