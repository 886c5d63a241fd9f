"""Label a scan by any words, and write coloured clouds, tables, pictures and a page that opens in any browser."""

import os
from argparse import ArgumentParser, Namespace
from pathlib import Path
from typing import TYPE_CHECKING

from xmask3d.cli.arguments import SCAN, add_reading, named_scan, reading_options
from xmask3d.cli.parser import refuse_given
from xmask3d.errors import UserError

if TYPE_CHECKING:
    from collections.abc import Callable

    from xmask3d.checkpoints.sources import Source
    from xmask3d.scan.scan import Scan
    from xmask3d.segment.result import SegmentationResult
    from xmask3d.segment.segmenter import Segmenter


SETTLE = 0.05
RENDERED = (
    "  it knows rendered rooms alone: of a real scan about two thirds of the points get the right word, and words "
    "beyond furniture and the parts of rooms mean little to it"
)
"""Warning about models on the small stand-ins for CLIP and Stable Diffusion."""


def add_arguments(parser: ArgumentParser) -> None:
    """Declare the arguments of `xmask3d segment`."""
    parser.epilog = """examples:
  xmask3d segment example --query sofa table bookshelf --background wall floor ceiling
  xmask3d segment my_scan/ --query "sofa|couch" "potted plant" --background wall floor
  xmask3d segment room.ply --query "red chair"
  xmask3d segment my_scan/ --classes scannet20 --save-features room.features
  xmask3d segment --list scans.txt --classes scannet20 --out labelled"""
    parser.add_argument("scan", type=Path, nargs="?", help=SCAN)
    parser.add_argument("--list", type=Path, metavar="FILE",
                        help="file of scans, one path a line, in place of one; those that are done are left out, and "
                             "processes of torchrun or of a SLURM array share them")  # fmt: skip
    words = parser.add_argument_group("what to look for")
    words.add_argument("--query", nargs="+", action="extend", default=[], metavar="WORD",
                       help="several: every point gets one; one: where is it? a|b are synonyms")  # fmt: skip
    words.add_argument("--classes", metavar="LIST", help="a shipped class list, such as scannet20 or scannet200")
    words.add_argument("--background", nargs="+", action="extend", default=[], metavar="WORD",
                       help="words that count as unlabelled")  # fmt: skip
    words.add_argument("--instances", action="store_true", help="also separate objects")
    words.add_argument("--corrections", type=Path, metavar="FILE",
                       help="clicks of xmask3d view on this or another scan that correct labels")  # fmt: skip
    model = parser.add_argument_group("model")
    model.add_argument("--model", "--checkpoint", metavar="NAME",
                       help="shipped, newest, a file or folder, a published one such as scannet20-b15n4, or org/name "
                       "of the Hugging Face hub (default: shipped, or a run of yours with a better score)")  # fmt: skip
    model.add_argument("--config", type=Path, help="its configuration, where it is not beside it")
    model.add_argument("--device", help="such as cpu, cuda:0 or mps (default: a CUDA GPU if there is one)")
    model.add_argument(
        "--batch-size", type=int, metavar="N", help="views at once; falls by itself when memory runs out"
    )
    model.add_argument(
        "--trust-code", action="store_true", help="import parts and fetch networks that the model's configuration names"
    )
    model.add_argument("--regions", choices=["none", "votes", "gate"],
                       help="let regions of the cloud choose a class together (default: as the model is evaluated, "
                            "but votes in place of none)")  # fmt: skip
    speed = parser.add_argument_group("less work, for a slow machine; docs/own_scan.md has what each costs")
    speed.add_argument("--settle", type=float, nargs="?", const=SETTLE, metavar="SHARE",
                       help="leave out views once those before them changed at most this share of the labels "
                            f"({SETTLE:g})")  # fmt: skip
    speed.add_argument("--image-size", type=int, metavar="PIXELS",
                       help="longer side of pictures as the networks see them (default: as in training)")  # fmt: skip
    speed.add_argument("--precision", choices=["auto", "float32", "bfloat16"],
                       help="of CLIP and the diffusion model; auto is bfloat16 on a CPU that is faster with it "
                            "(default: as in training)")  # fmt: skip
    speed.add_argument("--fast", action="store_true", help="look at the points alone, at no picture")
    output = parser.add_argument_group("output")
    output.add_argument("--out", type=Path,
                        help="folder of the results (default: segmented/<scan>); of a list, of all")  # fmt: skip
    output.add_argument("--save-features", type=Path, metavar="FILE",
                        help="for `xmask3d query` (default: features.safetensors in the folder)")  # fmt: skip
    add_reading(parser)


def check(options: Namespace) -> None:
    """Check for mistakes that can be found without a network and without reading the scan.

    Raises:
        UserError: there is a mistake.
    """
    if (options.scan is None) == (options.list is None):
        raise UserError("name one scan, or a file of many with --list FILE")
    if options.list and options.save_features:
        raise UserError("--save-features: one file for all scans of a list; leave it out, each folder gets its own")
    if not options.query and not options.classes:
        raise UserError("no words to look for; give some with --query, or a class list with --classes scannet20")
    if options.batch_size is not None and options.batch_size < 1:
        raise UserError(f"--batch-size {options.batch_size}: at least one view at once is needed")
    if options.settle is not None and not 0 <= options.settle < 1:
        raise UserError(f"--settle {options.settle:g}: a share of the labels is at least 0 and below 1, such as 0.02")
    if options.fast:
        for_pictures = ["settle", "image_size", "precision", "batch_size"]
        refuse_given(options, for_pictures, "is about pictures, of which --fast looks at none")

    from xmask3d.checkpoints.model_names import check_name
    from xmask3d.scan.scan import check_exists
    from xmask3d.segment import folder
    from xmask3d.segment.corrections import Corrections
    from xmask3d.segment.vocabulary import Reference, class_list, parse_queries
    from xmask3d.segment.wording import understand

    if options.model is not None:
        check_name(options.model)
    options.clicks = Corrections.load(options.corrections) if options.corrections else None
    listed = class_list(options.classes) if options.classes else []
    typed, outside = (understand(words, None).queries for words in (options.query, options.background))
    parse_queries([*listed, *typed], Reference([], []), outside)
    if options.config:
        from xmask3d.config import load_config

        load_config(options.config)
    if options.out or options.save_features:
        folder.check_places(options.out or folder.RESULTS, options.save_features)
    if options.scan:
        check_exists(options.scan)
    options.reading = reading_options(options)
    options.reading.check()


def run(options: Namespace) -> int:
    """Segment the scan or scans, write the results, and print the table."""
    options.scan = options.scan and named_scan(options.scan)
    check(options)
    if options.list:
        from xmask3d.cli.segment_list import segment_list

        return segment_list(options)

    from xmask3d.checkpoints.sources import find_source
    from xmask3d.files import locked
    from xmask3d.scan.scan import open_scan
    from xmask3d.segment import folder

    source = find_source(options.model, options.config)
    scan = open_scan(options.scan, options.reading)
    out = options.out or folder.default_folder(scan.name, options.scan)
    folder.check_places(out, options.save_features or out / folder.FEATURES)
    print(scan.describe())
    print(f"model: {source.words}" + (f"; {source.hint}" if source.hint else ""))
    segmenter = load_segmenter(options, source)
    if segmenter.config.model.clip == "shipped":
        print(RENDERED)
    if not options.out and out.name != scan.name:
        print(f"results go to {out}: {out.with_name(scan.name)} holds those of another scan")
    with locked(out, "a segmentation"):
        return _segment(options, segmenter, scan, out)


def load_segmenter(options: Namespace, source: "Source") -> "Segmenter":
    """Load the model, on this process's GPU if torchrun started several processes."""
    import torch

    from xmask3d.segment.segmenter import Segmenter

    device, process = options.device, os.environ.get("LOCAL_RANK")
    if device is None and process and torch.cuda.is_available():
        device = f"cuda:{int(process) % torch.cuda.device_count()}"
    segmenter = Segmenter.from_pretrained(
        source.checkpoint, options.config, device, options.batch_size, options.trust_code, options.regions,
        options.image_size, options.precision, options.fast,
    )  # fmt: skip
    segmenter.source = source.words
    return segmenter


def _segment(options: Namespace, segmenter: "Segmenter", scan: "Scan", out: Path) -> int:
    """Label the scan, write the results and print the table, while holding a lock on the folder."""
    from tqdm import tqdm

    from xmask3d.cli.result_table import print_result
    from xmask3d.segment import folder

    described = len(scan.lines)
    with tqdm(total=0 if options.fast else len(scan.scene.view_names), unit="view", dynamic_ncols=True) as progress:

        def report(done: int, total: int) -> None:
            progress.update(done - progress.n)

        result, files = label_scan(options, segmenter, scan, options.scan, out, report)
    for line in scan.lines[described:]:
        print(line)
    print_result(result)
    if len(options.query) > 1 and not options.background:
        print("every point got one of your words; leave the rest unlabelled with, say, --background wall floor ceiling")
    print(f"\nfurther words: xmask3d query {options.save_features or out / folder.FEATURES} ...")
    print(f"look at it: open {next(file for file in files if file.suffix == '.html')}, or xmask3d view {out}")
    print(f"everything is in {out}")
    return 0


def label_scan(
    options: Namespace,
    segmenter: "Segmenter",
    scan: "Scan",
    path: Path,
    out: Path,
    report: "Callable[[int, int], None] | None" = None,
    **about: object,
) -> "tuple[SegmentationResult, list[Path]]":
    """Label a scan and write all results to a folder, which is locked.

    Args:
        path: path of the scan.
        report: called with the number of finished views and of all views.
        about: further entries of the summary.

    Returns:
        The result, and its files.
    """
    from xmask3d.segment import folder
    from xmask3d.segment.result_files import write_result

    folder.begin(out, path)
    result = segmenter(
        scan,
        options.query,
        background=options.background,
        classes=options.classes,
        objects=options.instances,
        corrections=options.clicks,
        state=out / folder.STATE,
        report=report,
        settle=options.settle,
        fast=options.fast,
    )
    features = options.save_features or out / folder.FEATURES
    result.features.save(features)
    result.about |= {"path": str(path.resolve()), "features": folder.name_features(features, out), **about}
    if not options.classes:
        result.about["words"] = options.query
    files = write_result(result, out)
    folder.end(out)
    return result, files
