"""The `xmask3d` command: segment a scan by any words, ask saved features, look at the result, find out about a scan."""

import argparse
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from xmask3d.errors import UserError, run_tool

if TYPE_CHECKING:
    from xmask3d.scan.scan import ScanOptions
    from xmask3d.segment.result import SegmentationResult

EXAMPLES = """examples:
  xmask3d segment my_scan/ --query "sofa|couch" "potted plant" --background wall floor
  xmask3d segment room.ply --query "something to sit on"
  xmask3d segment my_scan/ --classes scannet20 --save-features room.features
  xmask3d query room.features "red chair"
  xmask3d view segmented/my_scan
  xmask3d info my_scan/
"""


def main() -> None:
    """Entry point of the `xmask3d` command."""
    run_tool(lambda: run(sys.argv[1:]))


def run(arguments: Sequence[str]) -> int:
    """Run a command line (without the program's name); returns the exit code.

    Raises:
        UserError: a mistake in what was asked for.
    """
    options = build_parser().parse_args(join_up(arguments))
    return options.command(options)


def join_up(arguments: Sequence[str]) -> list[str]:
    """The same command line with `--up -z` as `--up=-z`: argparse takes -z alone for an option."""
    joined: list[str] = []
    for argument in arguments:
        if joined and joined[-1] == "--up" and argument in ("-x", "-y", "-z"):
            joined[-1] = f"--up={argument}"
        else:
            joined.append(argument)
    return joined


def build_parser() -> argparse.ArgumentParser:
    """The four sub-commands."""
    parser = argparse.ArgumentParser(
        prog="xmask3d", description=__doc__, epilog=EXAMPLES, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    commands = parser.add_subparsers(required=True, metavar="{segment,query,view,info}")
    add_segment(commands.add_parser("segment", help="label a scan by words", description=segment.__doc__))
    asking = commands.add_parser("query", help="ask saved features further words", description=query.__doc__)
    asking.add_argument("features", type=Path, help="file of --save-features, or a result's folder")
    asking.add_argument("words", nargs="+", help="words or phrases; a|b are synonyms")
    asking.add_argument("--background", nargs="+", default=[], metavar="WORD", help="words that count as unlabelled")
    asking.add_argument("--out", type=Path, help="also write clouds, tables and the page into this folder")
    asking.set_defaults(command=query)
    viewing = commands.add_parser("view", help="look at a result or a scan in the browser", description=view.__doc__)
    viewing.add_argument("path", type=Path, help="a result's folder, a file of --save-features, or a scan")
    viewing.add_argument("--port", type=int, default=8080, help="port of the local server (default: 8080)")
    viewing.add_argument("--host", default="127.0.0.1", help="address to serve on (default: this machine only)")
    viewing.set_defaults(command=view)
    telling = commands.add_parser("info", help="find out what a scan is and whether it is sound")
    telling.add_argument("scan", type=Path)
    add_reading(telling)
    telling.set_defaults(command=info)
    return parser


def add_segment(parser: argparse.ArgumentParser) -> None:
    """Arguments of `segment`, which `tools/segment.py` shares."""
    parser.add_argument("scan", type=Path, help="folder of a recording, .sens file, point cloud, or processed scene")
    words = parser.add_argument_group("what to look for")
    words.add_argument("--query", nargs="+", default=[], metavar="WORD",
                       help="several: every point gets one; one: where is it? a|b are synonyms")  # fmt: skip
    words.add_argument("--classes", metavar="LIST", help="a shipped class list, such as scannet20 or scannet200")
    words.add_argument("--background", nargs="+", default=[], metavar="WORD", help="words that count as unlabelled")
    words.add_argument("--instances", action="store_true", help="also tell objects apart")
    model = parser.add_argument_group("model")
    model.add_argument("--checkpoint", type=Path, help="file or run folder (default: newest run, else shipped model)")
    model.add_argument("--config", type=Path, help="its configuration, where it is not beside it")
    model.add_argument("--device", help="such as cpu, cuda:0 or mps (default: a CUDA GPU if there is one)")
    model.add_argument("--batch-size", type=int, help="views at once; falls by itself when memory runs out")
    model.add_argument(
        "--trust-code", action="store_true", help="import parts that the model's configuration names by dotted path"
    )
    output = parser.add_argument_group("output")
    output.add_argument("--out", type=Path, help="folder of the results (default: segmented/<scan>)")
    output.add_argument("--save-features", type=Path, metavar="FILE",
                        help="for `xmask3d query` (default: features.safetensors in the folder)")  # fmt: skip
    add_reading(parser)
    parser.set_defaults(command=segment)


def add_reading(parser: argparse.ArgumentParser) -> None:
    """Arguments that say how a scan is to be read; everything is found out without them."""
    group = parser.add_argument_group("how to read the scan (found out unless given)")
    group.add_argument("--views", type=int, metavar="N", help="use the N frames that together see most")
    group.add_argument("--depth-scale", type=float, metavar="UNITS", help="units per metre of depth files, as 1000")
    group.add_argument("--intrinsics", type=float, nargs=4, metavar=("FX", "FY", "CX", "CY"), help="of colour pictures")
    group.add_argument("--poses", metavar="KIND", help="camera-to-world or world-to-camera (also with ', y up')")
    group.add_argument("--unit", choices=("m", "cm", "mm"), help="unit of a point cloud")
    group.add_argument("--up", metavar="AXIS", help="which axis points up: z, y, x, -z, -y or -x")
    group.add_argument("--voxel-size", type=float, default=0.02, metavar="M", help="spacing of fused points (0.02)")


def reading_options(options: argparse.Namespace) -> "ScanOptions":
    """`ScanOptions` from parsed arguments."""
    from xmask3d.scan.scan import ScanOptions

    return ScanOptions(
        views=options.views,
        depth_scale=options.depth_scale,
        intrinsics=tuple(options.intrinsics) if options.intrinsics else None,
        poses=options.poses,
        unit=options.unit,
        up=options.up,
        voxel_size=options.voxel_size,
    )


def segment(options: argparse.Namespace) -> int:
    """Label a scan by any words, and write coloured clouds, tables, pictures and a page that opens in any browser."""
    if not options.query and not options.classes:
        raise UserError("no words to look for; give some with --query, or a class list with --classes scannet20")
    from tqdm import tqdm

    from xmask3d.scan.scan import open_scan
    from xmask3d.segment import folder
    from xmask3d.segment.labelling import check_batch_size
    from xmask3d.segment.result_files import write_result
    from xmask3d.segment.segmenter import Segmenter, find_source

    check_batch_size(options.batch_size)
    if options.out:
        folder.check_places(options.out, options.save_features)
    source = find_source(options.checkpoint, options.config)
    scan = open_scan(options.scan, reading_options(options))
    out = options.out or folder.default_folder(scan.name, options.scan)
    features = options.save_features or out / folder.FEATURES
    folder.check_places(out, features)
    print(scan.describe())
    print(f"model: {source.words}")
    segmenter = Segmenter.from_checkpoint(
        source.checkpoint, source.config, options.device, options.batch_size, options.trust_code
    )
    segmenter.source = source.words
    if not options.out and out.name != scan.name:
        print(f"results go to {out}: {out.with_name(scan.name)} holds those of another scan")
    folder.begin(out, options.scan)
    with tqdm(total=len(scan.scene.view_names), unit="view", dynamic_ncols=True) as progress:

        def report(done: int, total: int) -> None:
            progress.update(done - progress.n)

        result = segmenter(
            scan,
            options.query,
            background=options.background,
            classes=options.classes,
            objects=options.instances,
            state=out / folder.STATE,
            report=report,
        )
    result.features.save(features)
    result.about |= {"path": str(options.scan.resolve()), "features": folder.name_features(features, out)}
    if not options.classes:
        result.about["words"] = options.query
    files = write_result(result, out)
    folder.end(out)
    print_result(result)
    if len(options.query) > 1 and not options.background:
        print("every point got one of your words; leave the rest unlabelled with, say, --background wall floor ceiling")
    print(f"\nfurther words: xmask3d query {features} ...")
    print(f"look at it: open {next(file for file in files if file.suffix == '.html')}, or xmask3d view {out}")
    print(f"everything is in {out}")
    return 0


def query(options: argparse.Namespace) -> int:
    """Ask saved features further words; no network runs but the text encoder."""
    from xmask3d.segment import folder
    from xmask3d.segment.query import query_features, text_encoder
    from xmask3d.segment.saved_features import PointFeatures

    start = time.monotonic()
    if options.out:
        folder.check_places(options.out)
    file = folder.features_file(options.features)
    features = PointFeatures.load(file)
    result = query_features(features, options.words, text_encoder(features), options.background)
    print_result(result)
    print(f"answered in {time.monotonic() - start:.2f} s")
    if options.out:
        from xmask3d.segment.result_files import write_result

        result.about |= {"features": folder.name_features(file, options.out), "words": options.words}
        write_result(result, options.out)
        print(f"everything is in {options.out}")
    return 0


def view(options: argparse.Namespace) -> int:
    """Look at a result (colours, labels, live queries) or at a scan (colours) in the browser."""
    from xmask3d.segment.viewer import open_viewer

    viewer = open_viewer(options.path, options.host, options.port)
    print(f"open http://{options.host}:{viewer.port} in a browser; Ctrl-C ends it")
    viewer.wait()
    return 0


def info(options: argparse.Namespace) -> int:
    """Say what a scan is, how it is read, and what is odd about it."""
    from xmask3d.scan.scan import open_scan

    print(open_scan(options.scan, reading_options(options)).describe())
    return 0


def print_result(result: "SegmentationResult") -> None:
    """A table of classes, or the best places of a phrase."""
    if result.about.get("mode") == "phrase":
        regions = result.regions[0]
        print(f"\n{result.phrases[0]}: {len(regions)} places fit best" if regions else "\nno place stands out")
        for number, region in enumerate(regions, 1):
            center, size = region.center + result.origin, region.high - region.low
            print(
                f"  {number}. similarity {region.score:.3f}, {len(region.index):,} points at "
                f"({center[0]:.2f}, {center[1]:.2f}, {center[2]:.2f}), {size[0]:.2f} x {size[1]:.2f} x {size[2]:.2f} m"
            )
        return
    print(f"\n{'class':24} {'points':>10} {'share':>7} {'about m2':>9} {'confidence':>11}")
    for row in result.classes():
        print(f"{row.name[:24]:24} {row.points:>10,} {row.share:>7.1%} {row.area:>9.1f} {row.confidence:>11.2f}")
    left = int((result.labels < 0).sum())
    if left:
        print(f"{'unlabelled':24} {left:>10,} {left / len(result.labels):>7.1%}")
    if result.objects is not None:
        print(f"{len(result.object_names)} objects")


if __name__ == "__main__":
    main()
