"""Evaluate a checkpoint on whole scenes: hIoU, base and novel mIoU, IoU per class, pictures."""

from argparse import ArgumentParser, Namespace
from pathlib import Path

from xmask3d.cli.arguments import check_data_folder, check_diffusion, read_config
from xmask3d.errors import UserError


def add_arguments(parser: ArgumentParser) -> None:
    """Declare the arguments of `xmask3d evaluate`."""
    parser.epilog = (
        "An evaluation that was stopped goes on where it was. Several processes share the scenes: scripts/eval.sh, or\n"
        "torchrun --nproc-per-node N -m xmask3d evaluate ..."
    )
    parser.add_argument("config", metavar="CONFIG", help="configuration of the run, such as config/scannet/B15N4.yaml")
    parser.add_argument("checkpoint", metavar="CHECKPOINT", help="'newest' or 'best' of the run's output, or a file")
    parser.add_argument("overrides", nargs="*", metavar="key=value", help="changes, such as evaluate.rotations=3")
    parser.add_argument(
        "--scenes", nargs="+", action="extend", metavar="NAME", help="scenes to use (default: the whole split)"
    )
    parser.add_argument("--pictures", type=int, default=0, metavar="N", help="scenes to draw and write as clouds")
    parser.add_argument("--out", type=Path, help="folder for the results (default: evaluation in the run's output)")


def run(options: Namespace) -> int:
    """Evaluate, write everything, print the table."""
    if options.checkpoint not in ("newest", "best") and not Path(options.checkpoint).is_file():
        raise UserError(f"checkpoint {options.checkpoint}: no such file; name one, or 'newest' or 'best' of the run")
    if options.out and options.out.is_file():
        raise UserError(f"--out {options.out}: is a file; name a folder")
    config = read_config(options)
    check_data_folder(config)
    check_diffusion(config)

    from xmask3d.build import build_reader
    from xmask3d.checkpoints.checkpoint import find_checkpoint
    from xmask3d.cli.evaluation_pictures import draw_evaluation
    from xmask3d.engine.evaluate import evaluate

    checkpoint = find_checkpoint(options.checkpoint, config.output)
    results = evaluate(config, checkpoint, options.scenes, options.out)
    if results:
        draw_evaluation(results, build_reader(config, results.benchmark, config.data.val_split), options.pictures)
        print(results.table())
        print(f"\nresults: {results.folder}")
    return 0
