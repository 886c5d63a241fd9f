"""Write a sentence about every view: by an image-to-text model, or by a template from label pictures."""

import argparse
import sys
from pathlib import Path

import torch

from xmask3d.build import build_reader
from xmask3d.config import load_config
from xmask3d.data.prepare.captions import ModelCaptioner, TemplateCaptioner, caption_views
from xmask3d.errors import UserError, run_tool
from xmask3d.resources import find_file
from xmask3d.splits import load_benchmark


def parse(arguments: list[str] | None = None) -> argparse.Namespace:
    """Command-line arguments."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("config", help="YAML file that says where the data is")
    parser.add_argument("overrides", nargs="*", metavar="key=value", help="changes, such as data.root=/scans")
    parser.add_argument(
        "--model",
        default="nlpconnect/vit-gpt2-image-captioning",
        help="name on the model hub, a local folder, or 'template' (default %(default)s)",
    )
    parser.add_argument("--novel", action="store_true", help="let the template name novel classes too")
    parser.add_argument("--out", type=Path, help="JSON to write, and to go on with (default: where training reads it)")
    parser.add_argument("--batch", type=int, default=8, help="views at a time (default %(default)s)")
    parser.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu", help="default %(default)s")
    return parser.parse_intermixed_args(arguments)


def main() -> int:
    """Caption the training and validation views of a configuration; 1 if one could not be."""
    args = parse()
    if args.batch < 1:
        raise UserError("--batch is 1 or more")
    config = load_config(args.config, args.overrides)
    benchmark, data = load_benchmark(config.benchmark), config.data
    out = args.out or (find_file(data.captions) if data.captions else find_file(data.root) / "captions.json")
    if out.is_dir():
        raise UserError(f"{out}: is a folder; --out names a JSON file")
    # The file that is about to be written must not be needed for reading the views.
    config.data.captions = None
    readers = [build_reader(config, benchmark, split) for split in dict.fromkeys((data.train_split, data.val_split))]
    if args.model == "template":
        captioner: TemplateCaptioner | ModelCaptioner = TemplateCaptioner(benchmark, args.novel)
    else:
        captioner = ModelCaptioner(args.model, args.device)
    problems: list[str] = []

    def report(problem: str) -> None:
        problems.append(problem)
        print(problem, file=sys.stderr)

    count = caption_views(readers, captioner, out, args.batch, report, data.bad_views == "refuse")
    print(f"{out}: {count} views captioned" + (f", {len(problems)} left out" if problems else ""))
    return 1 if problems else 0


if __name__ == "__main__":
    run_tool(main)
