"""Pre-train the small stand-ins of CLIP and Stable Diffusion on captioned views of training furniture."""

import argparse
import json
import os
from pathlib import Path

from tools.pretraining.pretraining import Plan, pretrain
from tools.pretraining.teachers import check_teachers
from xmask3d.cli.arguments import FURNITURE_CACHE
from xmask3d.errors import UserError, run_tool
from xmask3d.rooms.generate import find_furniture
from xmask3d.weights import STAND_INS


def parse(arguments: list[str] | None = None) -> argparse.Namespace:
    """Parse command-line arguments."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument(
        "--out", type=Path, default=STAND_INS, help="folder of the weights (default: the package's own)"
    )
    parser.add_argument(
        "--work",
        type=Path,
        required=True,
        help="folder for views and checkpoints; give it again to resume a run that was stopped",
    )
    parser.add_argument(
        "--furniture", default="auto", help="auto, or a folder that holds the furniture library (default %(default)s)"
    )
    parser.add_argument(
        "--cache", type=Path, default=FURNITURE_CACHE, help="where auto keeps the library (default %(default)s)"
    )
    parser.add_argument(
        "--workers", type=int, default=os.cpu_count() or 1, help="processes that render (default: one a core)"
    )
    plan = Plan()
    parser.add_argument(
        "--seed", type=int, default=plan.seed, help="seed of the random generator (default %(default)s)"
    )
    parser.add_argument(
        "--split-seed",
        type=int,
        default=plan.split_seed,
        help="seed of the rooms that the models are for: decides which furniture is for training (default %(default)s)",
    )
    for name, text in (
        ("collages", "rooms of eight views to learn from"),
        ("val_collages", "rooms of unseen furniture to measure on"),
        ("per_kind", "models made by rule of each kind"),
        ("variants", "image features of each view, of crops beyond the first"),
        ("text_steps", "steps of the text tower"),
        ("clip_steps", "steps of CLIP"),
        ("vae_steps", "steps of the autoencoder"),
        ("unet_steps", "steps of the UNet"),
        ("batch_size", "views a step"),
    ):
        parser.add_argument(
            "--" + name.replace("_", "-"), type=int, default=getattr(plan, name), help=f"{text} (default %(default)s)"
        )
    return parser.parse_args(arguments)


def main() -> None:
    """Pre-train as the command line asks."""
    args = parse()
    plan = Plan(**{name: getattr(args, name) for name in Plan.__dataclass_fields__})
    counts = [value for name, value in vars(plan).items() if not name.endswith("seed")]
    if min(*counts, args.workers) < 1:
        raise UserError("collages, models, variants, steps, batch size and workers must be 1 or more")
    check_teachers()
    furniture = find_furniture(args.furniture, args.cache)
    if furniture is None:
        raise UserError("pre-training needs the furniture library: see --furniture and --cache")
    report = pretrain(furniture, args.work, args.out, plan, args.workers)
    print(json.dumps(report, indent=1))


if __name__ == "__main__":
    run_tool(main)
