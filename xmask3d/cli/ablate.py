"""Train and evaluate variants of a configuration with several seeds, and tabulate their scores."""

import os
from argparse import ArgumentParser, Namespace
from itertools import product
from pathlib import Path
from typing import TYPE_CHECKING

from xmask3d.cli.arguments import add_config, check_data_folder, check_diffusion
from xmask3d.errors import UserError

if TYPE_CHECKING:
    from xmask3d.config import Config

TABLE = "ablation.md"


def add_arguments(parser: ArgumentParser) -> None:
    """Declare the arguments of `xmask3d ablate`."""
    parser.epilog = (
        "Every variant and seed has a folder of its own below --out. Ctrl-C and SIGTERM save first; started again, it\n"
        "resumes where it was. The table compares with the first variant, by what differs on the same scenes.\n"
        "example: xmask3d ablate rooms/B12N7 --vary model.condition=point,image,text --seeds 1,2,3"
    )
    add_config(parser)
    parser.add_argument(
        "--vary", action="append", default=[], metavar="KEY=A,B", help="values of a key; several keys are combined"
    )
    parser.add_argument(
        "--variant", action="append", default=[], nargs="+", metavar=("NAME", "KEY=VALUE"),
        help="a variant of several changes, such as --variant plain loss.mask_regularisation=0 loss.binary=0",
    )  # fmt: skip
    parser.add_argument("--seeds", default="1,2,3", metavar="N,N", help="seeds of each variant (default: 1,2,3)")
    parser.add_argument("--out", type=Path, help="folder of all runs and of the table (default: OUTPUT-ablation)")


def run(options: Namespace) -> int:
    """Run missing trainings seed by seed; return 0, or the exit code of a training that a signal stopped."""
    from xmask3d.config import load_config

    variants, seeds = read_variants(options.vary, options.variant), read_seeds(options.seeds)
    plain = load_config(options.config, options.overrides)
    out = options.out or plain.output.with_name(f"{plain.output.name}-ablation")
    cells = {}
    # load all of them, so that a mistake is found before hours of work
    for seed, (name, changes) in product(seeds, variants.items()):
        place = [f"seed={seed}", f"output={out / name / f'seed-{seed}'}"]
        cells[seed, name] = load_config(options.config, [*options.overrides, *changes, *place])
        check_data_folder(cells[seed, name])
        check_diffusion(cells[seed, name])
    for (seed, name), config in cells.items():
        print(f"\n== {name}, seed {seed}", flush=True)
        if code := run_cell(config):
            return code
        if name == list(variants)[-1] and not int(os.environ.get("RANK", 0)):  # only the first of several processes
            text = tabulate(out, list(variants), seeds[: seeds.index(seed) + 1])
            print(f"\n{text}\n\ntable: {out / TABLE}")
    return 0


def read_variants(vary: list[str], named: list[list[str]]) -> dict[str, list[str]]:
    """Return the changes of each variant by its name: all combinations of values, then the named variants.

    Raises:
        UserError: there is nothing to vary, a key has no values, or a name is given twice or is no valid folder name.
    """
    import json

    from xmask3d.guarded import parse_yaml

    axes = []
    for text in vary:
        key, _, values = text.partition("=")
        found = parse_yaml(f"[{values}]", f"--vary {text[:60]}")[0]
        if not found:
            raise UserError(f"--vary '{text}': write KEY=A,B, such as model.condition=point,image")
        axes.append([(f"{key.rpartition('.')[2]}={value}", f"{key}={json.dumps(value)}") for value in found])
    cells = [(",".join(name for name, _ in cell), [change for _, change in cell]) for cell in product(*axes) if cell]
    cells += [(name, changes) for name, *changes in named]
    variants = dict(cells)
    odd = [name for name in variants if not name.strip() or Path(name).name != name]
    if len(variants) < 2 or len(variants) < len(cells) or odd:
        problem = f"'{odd[0]}' is no name of a folder" if odd else "at least two variants of different names are needed"
        raise UserError(f"{problem}; give --vary KEY=A,B, or --variant NAME KEY=VALUE twice or more")
    return variants


def read_seeds(text: str) -> list[int]:
    """Parse different seeds. Raises `UserError` for anything else."""
    seeds = [int(word) for word in text.split(",") if word.isdigit()]
    if not seeds or len(set(seeds)) < len(text.split(",")):
        raise UserError(f"--seeds {text}: write different whole numbers, such as 1,2,3")
    return seeds


def run_cell(config: "Config") -> int:
    """Train one variant with one seed, or resume it, evaluate its last checkpoint, and return the exit code."""
    from xmask3d.checkpoints.checkpoint import find_checkpoint
    from xmask3d.engine.evaluate import evaluate
    from xmask3d.engine.train import train

    code = train(config)
    if not code:
        evaluate(config, find_checkpoint("newest", config.output))
    return code


def tabulate(out: Path, names: list[str], seeds: list[int]) -> str:
    """Write and return the table of finished seeds: means with standard deviations, and differences from the first."""
    from xmask3d.files import atomic_write
    from xmask3d.metrics.compare import check_comparable, many_scenes, markdown, paired, read_row

    rows = [read_row(name, [out / name / f"seed-{seed}" / "evaluation" for seed in seeds]) for name in names]
    check_comparable(rows)
    parts = [markdown(rows)]
    if many_scenes(rows):
        parts += ["\n".join(f"- {line}" for line in paired(rows[0], row)) for row in rows[1:]]
    atomic_write(out / TABLE, "\n\n".join(parts) + "\n")
    return "\n\n".join(parts)
