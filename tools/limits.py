"""What holds the scores back: evaluate again with the true gate, the true masks, both, and CLIP alone on true masks."""

import argparse
from pathlib import Path

from xmask3d.config import find_file, load_config
from xmask3d.errors import run_tool


def main() -> int:
    """Parse arguments, evaluate each variant, print a table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("config", type=Path, help="configuration of the run, such as config/rooms/B15N4.yaml")
    parser.add_argument("checkpoint", help="'newest' or 'best' of the run's output folder, or a file")
    parser.add_argument("overrides", nargs="*", help="key=value overrides")
    arguments = parser.parse_intermixed_args()
    config = load_config(find_file(arguments.config), arguments.overrides)

    from xmask3d.engine.checkpoint import find_checkpoint
    from xmask3d.engine.limits import score_with_truth

    checkpoint = find_checkpoint(arguments.checkpoint, config.output)
    print(f"{'':38}{'hIoU':>7}{'base':>7}{'novel':>7}", flush=True)
    for name, scores in score_with_truth(config, checkpoint):
        print(f"{name:38}" + "".join(f"{100 * value:7.1f}" for value in scores), flush=True)
    return 0


if __name__ == "__main__":
    run_tool(main)
