"""Convert a checkpoint between the published format, a weight file of this package, and a run's checkpoint."""

from argparse import ArgumentParser, Namespace
from pathlib import Path

from xmask3d.cli.arguments import check_least
from xmask3d.cli.parser import refuse_given
from xmask3d.errors import UserError


def add_arguments(parser: ArgumentParser) -> None:
    """Declare the arguments of `xmask3d convert`."""
    parser.epilog = """examples:
  xmask3d convert pretrained/b15n4.pth.tar pretrained/b15n4.safetensors
  xmask3d convert pretrained/b15n4.safetensors b15n4.pth.tar
  xmask3d convert --optimizer --config config/scannet/B15N4.yaml \\
      pretrained/b15n4.pth.tar runs/scannet-B15N4/checkpoints/step-00045000.pt"""
    parser.add_argument("source", type=Path, help="published checkpoint, .safetensors, or checkpoint of a run")
    parser.add_argument("target", type=Path, help="NAME.safetensors, NAME.pth.tar, or step-NUMBER.pt of a run")
    parser.add_argument("--optimizer", action="store_true", help="convert the optimiser's state too")
    parser.add_argument("--config", type=Path, help="configuration of the network (default: the published sizes)")
    parser.add_argument(
        "--strict", action="store_true", help="refuse a published checkpoint that holds more than was published"
    )
    parser.add_argument(
        "--steps-per-epoch",
        type=int,
        metavar="N",
        help="steps per epoch of the run to resume (default: 300, as published)",
    )


def run(options: Namespace) -> int:
    """Convert, and print what was read."""
    check_least(options, "steps_per_epoch")
    if not options.source.is_file():
        raise UserError(f"{options.source}: no such checkpoint")
    if options.target.suffix != ".pt":
        refuse_given(options, ["steps_per_epoch"], "is for a checkpoint of a run, step-NUMBER.pt")

    from xmask3d.config import load_config

    config = load_config(options.config) if options.config else None

    from xmask3d.checkpoints.convert import PUBLISHED_STEPS, convert

    steps = options.steps_per_epoch or PUBLISHED_STEPS
    checkpoint = convert(
        options.source,
        options.target,
        config,
        optimizer=options.optimizer,
        steps_per_epoch=steps,
        strict=options.strict,
    )
    values = sum(tensor.numel() for tensor in checkpoint.tensors.values())
    state = checkpoint.optimizer
    also = f", optimizer state of {len(state.tensors)} parameters" if state else ""
    content = f"{len(checkpoint.tensors)} tensors, {values:,} values, epoch {checkpoint.values.get('epoch', 'unknown')}"
    print(f"{options.target}: {content}{also}")
    return 0
