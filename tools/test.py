"""Evaluate a checkpoint on whole scenes: hIoU, base and novel mIoU, IoU per class, pictures."""

import argparse
from pathlib import Path

from xmask3d.config import load_config
from xmask3d.errors import run_tool


def main() -> int:
    """Parse arguments, evaluate, print the table."""
    parser = argparse.ArgumentParser(
        description=__doc__,
        epilog="An evaluation that was stopped goes on where it was. Several processes share the scenes: torchrun "
        "--nproc-per-node N tools/test.py ..., or scripts/eval.sh.",
    )
    parser.add_argument("config", type=Path, help="configuration of the run, such as config/scannet/B15N4.yaml")
    parser.add_argument("checkpoint", help="'newest' or 'best' of the run's output folder, or a file")
    parser.add_argument("overrides", nargs="*", help="key=value overrides, such as evaluate.rotations=3")
    parser.add_argument("--scenes", nargs="+", metavar="NAME", help="scenes to use (default: the whole split)")
    parser.add_argument("--pictures", type=int, default=0, metavar="N", help="scenes to draw and write as clouds")
    parser.add_argument("--out", type=Path, help="folder for the results (default: evaluation in the run's output)")
    arguments = parser.parse_intermixed_args()
    config = load_config(arguments.config, arguments.overrides)

    from xmask3d.build import build_reader
    from xmask3d.checkpoints.checkpoint import find_checkpoint
    from xmask3d.cli.evaluation_pictures import draw_evaluation
    from xmask3d.engine.evaluate import evaluate

    checkpoint = find_checkpoint(arguments.checkpoint, config.output)
    results = evaluate(config, checkpoint, arguments.scenes, arguments.out)
    if results:
        draw_evaluation(results, build_reader(config, results.benchmark, config.data.val_split), arguments.pictures)
        print(results.table())
        print(f"\nresults: {results.folder}")
    return 0


if __name__ == "__main__":
    run_tool(main)
