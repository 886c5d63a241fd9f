"""Check the data and the weights of a configuration: names every bad or missing file, and where to get it."""

import sys
from argparse import ArgumentParser, Namespace
from pathlib import Path
from typing import TYPE_CHECKING

from xmask3d.cli.arguments import add_config, add_workers, check_data_folder, check_least, read_config
from xmask3d.cli.parser import refuse_given
from xmask3d.errors import UserError

if TYPE_CHECKING:
    from xmask3d.config import Config


def add_arguments(parser: ArgumentParser) -> None:
    """Declare the arguments of `xmask3d check`."""
    add_config(parser)
    one = parser.add_mutually_exclusive_group()
    one.add_argument("--data", action="store_true", help="check the data only")
    one.add_argument("--weights", action="store_true", help="check the weights only")
    parser.add_argument("--views", type=int, metavar="N", help="number of views to check per scene (default: all)")
    add_workers(parser)
    parser.add_argument(
        "--checkpoint", type=Path, metavar="FILE", help="checkpoint to look at (default: the published one, if any)"
    )


def run(options: Namespace) -> int:
    """Check weights and data; return 1 if anything is wrong or missing."""
    check_least(options, "views", "workers")
    if options.weights:
        refuse_given(options, ["views", "workers"], "is for data, which --weights leaves out")
    if options.data:
        refuse_given(options, ["checkpoint"], "is for weights, which --data leaves out")
    config = read_config(options)
    code = 0 if options.data else check_weights(config, options.checkpoint)
    return code if options.weights else max(code, check_data(config, options.views, options.workers))


def check_weights(config: "Config", checkpoint: Path | None) -> int:
    """Print which weights are present and where to get the others; return 1 if one is missing."""
    from xmask3d.checkpoints import check_weights as weights

    findings = weights.check_weights(config, checkpoint)
    for finding in findings:
        print("\n".join(finding.lines()))
    missing = [finding.what for finding in findings if not finding.there]
    print(f"missing: {', '.join(missing)}" if missing else "all weights are there", flush=True)
    return 1 if missing else 0


def check_data(config: "Config", views: int | None, workers: int) -> int:
    """Print the content of both splits and every problem; return 1 if there is a problem.

    Args:
        views: views to check per scene; None for all.
        workers: number of processes.

    Raises:
        UserError: there is no data at all.
    """
    check_data_folder(config)

    from xmask3d.build import build_reader, training_view_settings
    from xmask3d.data.check import check_split, describe, published_scenes
    from xmask3d.data.scannet import ScanNetReader
    from xmask3d.splits import load_benchmark

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
            max_views=views,
            workers=workers,
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
