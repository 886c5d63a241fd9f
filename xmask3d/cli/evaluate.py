"""Evaluate a checkpoint on complete scenes: hIoU, base and novel mIoU, IoU per class, pictures; or score files."""

from argparse import ArgumentParser, Namespace
from pathlib import Path

from xmask3d.checkpoints.model_names import check_name
from xmask3d.cli.arguments import check_data_folder, check_diffusion, read_config
from xmask3d.cli.score import SCORING, add_scoring, score, score_objects, write
from xmask3d.errors import UserError


def add_arguments(parser: ArgumentParser) -> None:
    """Declare the arguments of `xmask3d evaluate`."""
    parser.epilog = (
        "An evaluation that was stopped resumes. Several processes share the scenes: scripts/eval.sh, or\n"
        "torchrun --nproc-per-node N -m xmask3d evaluate ..., or the tasks of a SLURM array, as --array=0-7:\n"
        "xmask3d evaluate CONFIG CHECKPOINT --share $SLURM_ARRAY_TASK_ID/8; the last to end writes the table."
    )
    parser.add_argument("config", metavar="CONFIG", help="configuration of the run, such as config/scannet/B15N4.yaml")
    parser.add_argument(
        "checkpoint",
        nargs="?",
        metavar="CHECKPOINT",
        help="'newest' or 'best' of the run's output, a file, a folder of another run or of xmask3d export, or shipped",
    )
    parser.add_argument("overrides", nargs="*", metavar="key=value", help="changes, such as evaluate.rotations=3")
    parser.add_argument(
        "--scenes", nargs="+", action="extend", metavar="NAME", help="scenes to use (default: the complete split)"
    )
    parser.add_argument("--pictures", type=int, default=0, metavar="N", help="scenes to draw and write as clouds")
    parser.add_argument("--out", type=Path, help="folder for the results (default: evaluation in the run's output)")
    parser.add_argument("--share", default="0/1", metavar="K/N",
                        help="do every N-th scene from the K-th (0, 1, ...) on; other calls do the rest")  # fmt: skip
    add_scoring(parser)


def run(options: Namespace) -> int:
    """Evaluate, write all files, and print the table."""
    if options.predictions:
        return run_scoring(options)
    if not options.checkpoint:
        raise UserError(
            "name a CHECKPOINT ('newest' or 'best' of the run's output, file, folder), or give --predictions"
        )
    own = options.checkpoint in ("newest", "best")
    if not own:
        check_name(options.checkpoint)
    if options.out and options.out.is_file():
        raise UserError(f"--out {options.out}: is a file; name a folder")
    share = _parse_share(options.share)
    config = read_config(options)
    useless = [name for name in SCORING if name in options.given and not config.evaluate.instances]
    if useless:
        raise UserError(f"--{useless[0].replace('_', '-')}: only with --predictions, or with evaluate.instances=true")
    check_data_folder(config)
    check_diffusion(config)

    from xmask3d.build import build_reader
    from xmask3d.checkpoints.checkpoint import find_checkpoint
    from xmask3d.checkpoints.sources import find_source, weights_in
    from xmask3d.cli.evaluation_pictures import draw_evaluation
    from xmask3d.engine.evaluate import evaluate

    if own:
        checkpoint = find_checkpoint(options.checkpoint, config.output)
    else:
        named = Path(options.checkpoint)
        checkpoint = weights_in(named) if named.exists() else find_source(options.checkpoint).checkpoint
    results = evaluate(config, checkpoint, options.scenes, options.out, share)
    if results:
        draw_evaluation(results, build_reader(config, results.benchmark, config.data.val_split), options.pictures)
        print(results.table())
        if config.evaluate.instances:
            score_objects(options, config, results)
        print(f"\nresults: {results.folder}")
    return 0


def _parse_share(text: str) -> tuple[int, int]:
    """Parse K/N. Raises `UserError` if it has another form."""
    number, _, count = text.partition("/")
    if not (number.isdecimal() and count.isdecimal() and int(number) < int(count)):
        raise UserError(f"--share {text}: expected K/N with K from 0 to N - 1, such as 0/8")
    return int(number), int(count)


def run_scoring(options: Namespace) -> int:
    """Score existing predictions, write all files, and print the table."""
    if options.checkpoint and "=" in options.checkpoint:  # the first override is in the place of the checkpoint
        options.overrides.insert(0, options.checkpoint)
    elif options.checkpoint:
        raise UserError(f"--predictions: scores files in place of a checkpoint; leave out {options.checkpoint}")
    for name in ("pictures", "share"):
        if name in options.given:
            raise UserError(f"--{name}: only of a checkpoint; scored predictions get a bar chart, in one process")
    if options.out and options.out.is_file():
        raise UserError(f"--out {options.out}: is a file; name a folder")
    if not options.predictions.is_dir():
        raise UserError(f"--predictions {options.predictions}: no such folder")
    config = read_config(options)
    check_data_folder(config)

    results = score(options, config)
    folder = options.out or config.output / "predictions" / results.method
    write(results, folder)
    print(results.table())
    print(f"\nresults: {folder}")
    return 0
