"""Write a trained model as a small folder that can be shipped, or a result as other programs take it."""

from argparse import ArgumentParser, Namespace
from pathlib import Path

from xmask3d.cli.parser import refuse_given
from xmask3d.errors import UserError


def add_arguments(parser: ArgumentParser) -> None:
    """Declare the arguments of `xmask3d export`."""
    parser.epilog = """examples:
  xmask3d export segmented/my_scan --to glb
  xmask3d export segmented/my_scan --to my_scan_labelled.ply
  xmask3d export segmented/my_scan --to objects
  xmask3d export runs/rooms-B15N4 my_model

Of a result (a folder of `xmask3d segment`), --to is a file whose suffix names the format, or one of: same (the scan's
own file with labels), ply, obj, glb, las, laz, pcd, objects (one file an object), boxes (JSON), scannet (the
benchmark's text files), training (points and labels as processed data sets have them).

Of a run, the model is written as float16 weights and the configuration. xmask3d segment --model takes the folder,
and xmask3d evaluate model.safetensors in it. Written to xmask3d/weights/rooms-B15N4 it is the model that segment uses
where nothing was trained."""
    parser.add_argument("source", type=Path, help="folder of a result, or of a run such as runs/rooms-B15N4")
    parser.add_argument("out", type=Path, nargs="?", help="folder to write (of a result: its own by default)")
    result = parser.add_argument_group("of a result")
    result.add_argument("--to", metavar="PATH|FORMAT", help="file or format (default: same)")
    result.add_argument("--paint", action="store_true", help="colour by class also what has colours of its own")
    model = parser.add_argument_group("of a run")
    model.add_argument("--checkpoint", default="best", help="'best' (default), 'newest', or a file")
    model.add_argument(
        "--trust-code", action="store_true", help="import parts and fetch networks that the run's configuration names"
    )


def run(options: Namespace) -> int:
    """Export, and print what was written."""
    if options.out is not None and options.out.is_file():
        raise UserError(f"{options.out}: is a file; name a folder to write")
    if (options.source / "summary.json").is_file():
        return _export_result(options)
    if not (options.source / "config.yaml").is_file():
        raise UserError(
            f"{options.source}: neither a result (no summary.json) nor a run (no config.yaml); name a folder such as "
            "segmented/my_scan, or runs/rooms-B15N4"
        )
    refuse_given(options, ["to", "paint"], f"is for results, and {options.source} is a run")
    if options.out is None:
        raise UserError(f"{options.source}: a run; name a folder to write its model to, such as my_model")

    from xmask3d.checkpoints.export import export_model

    written = export_model(options.source, options.out, options.checkpoint, options.trust_code)
    print(
        f"{written.path}: {written.numbers / 1e6:.2f} M numbers, {written.size / 1e6:.1f} MB; "
        f"rounding changed no tensor by more than {written.change:.1e} of its largest value"
    )
    return 0


def _export_result(options: Namespace) -> int:
    to = options.to or "same"
    refuse_given(options, ["checkpoint", "trust_code"], f"is for runs, and {options.source} is a result")
    if to in ("boxes", "scannet", "training") or to.lower().endswith(".json"):
        refuse_given(options, ["paint"], f"has no effect on --to {to}, which holds no colours")

    from xmask3d.segment.answer import Answer
    from xmask3d.segment.exports import KINDS, export_answer

    if options.out is not None and to not in KINDS:
        raise UserError(f"{options.out}: --to {to} is a path already; give one of them")
    answer, folder = Answer.read(options.source), options.out or options.source
    exports = export_answer(answer, to, folder, options.paint)
    for note in exports.notes:
        print(note)
    for path in exports.files[:10]:
        print(path)
    if len(exports.files) > 10:
        print(f"... and {len(exports.files) - 10} more")
    return 0
