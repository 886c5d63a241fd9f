"""Convert a checkpoint between the published format, a weight file of this package, and a run's checkpoint.

    python tools/convert_checkpoint.py pretrained/b15n4.pth.tar pretrained/b15n4.safetensors
    python tools/convert_checkpoint.py pretrained/b15n4.safetensors b15n4.pth.tar
    python tools/convert_checkpoint.py --optimizer --config config/scannet/B15N4.yaml \\
        pretrained/b15n4.pth.tar runs/scannet-B15N4/checkpoints/step-00045000.pt
"""

import argparse
from pathlib import Path

from xmask3d.checkpoints.convert import PUBLISHED_STEPS, convert
from xmask3d.config import load_config
from xmask3d.errors import run_tool


def parse(arguments: list[str] | None = None) -> argparse.Namespace:
    """Command-line arguments."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("source", type=Path, help="published checkpoint, .safetensors, or checkpoint of a run")
    parser.add_argument("target", type=Path, help="NAME.safetensors, NAME.pth.tar, or step-NUMBER.pt of a run")
    parser.add_argument("--optimizer", action="store_true", help="convert the optimiser's state too")
    parser.add_argument("--config", type=Path, help="configuration of the network (default: the published sizes)")
    parser.add_argument(
        "--steps-per-epoch", type=int, default=PUBLISHED_STEPS, help="of the run that goes on (default %(default)s)"
    )
    return parser.parse_args(arguments)


def main() -> None:
    """Convert and say what there was."""
    args = parse()
    config = load_config(args.config) if args.config else None
    checkpoint = convert(
        args.source, args.target, config, optimizer=args.optimizer, steps_per_epoch=args.steps_per_epoch
    )
    values = sum(tensor.numel() for tensor in checkpoint.tensors.values())
    state = checkpoint.optimizer
    also = f", optimizer state of {len(state.tensors)} parameters" if state else ""
    content = f"{len(checkpoint.tensors)} tensors, {values:,} values, epoch {checkpoint.values['epoch']}"
    print(f"{args.target}: {content}{also}")


if __name__ == "__main__":
    run_tool(main)
