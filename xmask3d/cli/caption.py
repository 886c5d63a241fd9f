"""Write a sentence about every view: by an image-to-text model, or by a template from label pictures."""

import sys
from argparse import ArgumentParser, Namespace
from pathlib import Path
from typing import TYPE_CHECKING

from xmask3d.cli.arguments import add_config, check_data_folder, check_least, read_config
from xmask3d.cli.parser import refuse_given
from xmask3d.errors import UserError

if TYPE_CHECKING:
    from xmask3d.data.prepare.captions import Captioner
    from xmask3d.splits import Benchmark

TEMPLATE = "template"


def add_arguments(parser: ArgumentParser) -> None:
    """Declare the arguments of `xmask3d caption`."""
    add_config(parser)
    parser.add_argument(
        "--model",
        default="nlpconnect/vit-gpt2-image-captioning",
        help=f"name on the model hub, a local folder, or '{TEMPLATE}' (default %(default)s)",
    )
    parser.add_argument("--novel", action="store_true", help="let the template name novel classes too")
    parser.add_argument(
        "--out", type=Path, metavar="FILE", help="JSON to write, and to resume from (default: where training reads it)"
    )
    parser.add_argument("--batch", type=int, default=8, metavar="N", help="views at a time (default %(default)s)")
    parser.add_argument("--device", help="such as cpu or cuda:0 (default: a GPU if there is one)")


def run(options: Namespace) -> int:
    """Caption the training and validation views of a configuration; return 1 if a view could not be captioned."""
    check_least(options, "batch")
    if options.model == TEMPLATE:
        refuse_given(options, ["device"], f"is for a model, not for the {TEMPLATE}")
    else:
        refuse_given(options, ["novel"], f"is for --model {TEMPLATE}")
    config = read_config(options)

    from xmask3d.resources import find_file

    data = config.data
    out = options.out or (find_file(data.captions) if data.captions else find_file(data.root) / "captions.json")
    if out.is_dir():
        raise UserError(f"{out}: is a folder; --out names a JSON file")
    check_data_folder(config)

    from xmask3d.build import build_reader
    from xmask3d.data.prepare.captions import caption_views
    from xmask3d.splits import load_benchmark

    benchmark = load_benchmark(config.benchmark)
    # Reading the views must not need the file that is about to be written.
    config.data.captions = None
    readers = [build_reader(config, benchmark, split) for split in dict.fromkeys((data.train_split, data.val_split))]
    problems: list[str] = []

    def report(problem: str) -> None:
        problems.append(problem)
        print(problem, file=sys.stderr)

    captioner = _make_captioner(options, benchmark)
    count = caption_views(readers, captioner, out, options.batch, report, data.bad_views == "refuse")
    print(f"{out}: {count} views captioned" + (f", {len(problems)} left out" if problems else ""))
    return 1 if problems else 0


def _make_captioner(options: Namespace, benchmark: "Benchmark") -> "Captioner":
    from xmask3d.data.prepare.captions import ModelCaptioner, TemplateCaptioner

    if options.model == TEMPLATE:
        return TemplateCaptioner(benchmark, options.novel)
    import torch

    return ModelCaptioner(options.model, options.device or ("cuda" if torch.cuda.is_available() else "cpu"))
