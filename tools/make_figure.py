"""Draw a room in colour, its truth, the prediction, and the predicted masks of one view."""

import argparse
from pathlib import Path

from xmask3d.config import find_file, load_config
from xmask3d.errors import run_tool


def main() -> int:
    """Parse arguments and write the figure."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("config", type=Path, help="configuration of the run")
    parser.add_argument("checkpoint", help="'newest' or 'best' of the run's output folder, or a file")
    parser.add_argument("overrides", nargs="*", help="key=value overrides")
    parser.add_argument("--scene", required=True, help="name of a validation scene")
    parser.add_argument("--view", type=int, default=0, help="which of its views (default %(default)s)")
    parser.add_argument("--out", type=Path, default=Path("fig/rooms.png"), help="PNG to write (default %(default)s)")
    arguments = parser.parse_intermixed_args()
    config = load_config(find_file(arguments.config), arguments.overrides)

    from xmask3d.engine.checkpoint import find_checkpoint
    from xmask3d.engine.figure import make_figure

    make_figure(
        config, find_checkpoint(arguments.checkpoint, config.output), arguments.scene, arguments.view, arguments.out
    )
    print(arguments.out)
    return 0


if __name__ == "__main__":
    run_tool(main)
