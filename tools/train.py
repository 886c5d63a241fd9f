"""Train, or go on with, the run of a configuration."""

import argparse
from pathlib import Path

from xmask3d.config import load_config
from xmask3d.errors import run_tool


def main() -> int:
    """Parse arguments and train."""
    parser = argparse.ArgumentParser(
        description=__doc__,
        epilog="Resumes by itself from the newest good checkpoint in output=FOLDER. SIGTERM and Ctrl-C save first, "
        "then exit with 143 and 130; a run that is complete exits with 0 at once. Several processes: torchrun "
        "--nproc-per-node N tools/train.py ..., or scripts/train.sh.",
    )
    parser.add_argument("config", type=Path, help="configuration, such as config/scannet/B15N4.yaml")
    parser.add_argument("overrides", nargs="*", help="key=value overrides, such as train.epochs=10 output=runs/mine")
    arguments = parser.parse_intermixed_args()
    config = load_config(arguments.config, arguments.overrides)

    from xmask3d.engine.train import train  # takes seconds to import; a mistake above should not wait for it
    from xmask3d.visualize.view_picture import draw_view

    return train(config, draw_view)


if __name__ == "__main__":
    run_tool(main)
