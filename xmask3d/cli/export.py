"""Write a trained model as a small folder that can be shipped: float16 weights and the configuration."""

from argparse import ArgumentParser, Namespace
from pathlib import Path

from xmask3d.errors import UserError


def add_arguments(parser: ArgumentParser) -> None:
    """Declare the arguments of `xmask3d export`."""
    parser.epilog = (
        "xmask3d segment --checkpoint takes the folder, and xmask3d evaluate model.safetensors in it.\n"
        "Written to xmask3d/weights/rooms-B15N4 it is the model that segment uses where nothing was trained."
    )
    parser.add_argument("run", type=Path, help="folder of a run, such as runs/rooms-B15N4")
    parser.add_argument("out", type=Path, help="folder to write, such as my_model")
    parser.add_argument("--checkpoint", default="best", help="'best' (default), 'newest', or a file")
    parser.add_argument(
        "--trust-code", action="store_true", help="import networks that the run's configuration names by dotted path"
    )


def run(options: Namespace) -> int:
    """Export, and print what was written."""
    if not (options.run / "config.yaml").is_file():
        raise UserError(f"{options.run}: no config.yaml; name the folder of a run, such as runs/rooms-B15N4")
    if options.out.is_file():
        raise UserError(f"{options.out}: is a file; name a folder to write")

    from xmask3d.checkpoints.export import export_model

    written = export_model(options.run, options.out, options.checkpoint, options.trust_code)
    print(
        f"{written.path}: {written.numbers / 1e6:.2f} M numbers, {written.size / 1e6:.1f} MB; "
        f"rounding changed no tensor by more than {written.change:.1e} of its largest value"
    )
    return 0
