"""Write a trained model as a small folder that can be shipped: float16 weights and the configuration."""

import argparse
from pathlib import Path

from xmask3d.errors import run_tool


def main() -> int:
    """Parse arguments, export, say what was written."""
    parser = argparse.ArgumentParser(
        description=__doc__,
        epilog="The folder is what `xmask3d segment --checkpoint` and tools/test.py take. Written to "
        "xmask3d/weights/rooms-B15N4 it is the model that `xmask3d segment` uses where nothing was trained.",
    )
    parser.add_argument("run", type=Path, help="folder of a run, such as runs/rooms-B15N4")
    parser.add_argument("out", type=Path, help="folder to write, such as xmask3d/weights/rooms-B15N4")
    parser.add_argument("--checkpoint", default="best", help="'best' (default), 'newest', or a file")
    arguments = parser.parse_args()

    from xmask3d.checkpoints.export import export_model

    written = export_model(arguments.run, arguments.out, arguments.checkpoint)
    print(
        f"{written.path}: {written.numbers / 1e6:.2f} M numbers, {written.size / 1e6:.1f} MB; "
        f"rounding changed no tensor by more than {written.change:.1e} of its largest value"
    )
    return 0


if __name__ == "__main__":
    run_tool(main)
