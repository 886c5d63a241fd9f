"""Ask saved features further words; no network runs but the text encoder."""

import time
from argparse import ArgumentParser, Namespace
from pathlib import Path


def add_arguments(parser: ArgumentParser) -> None:
    """Declare the arguments of `xmask3d query`."""
    parser.epilog = 'example: xmask3d query segmented/my_scan "red chair"'
    parser.add_argument("features", type=Path, help="file of --save-features, or a result's folder")
    parser.add_argument("words", nargs="+", metavar="WORD", help="words or phrases; a|b are synonyms")
    parser.add_argument("--background", nargs="+", action="extend", default=[], metavar="WORD",
                        help="words that count as unlabelled")  # fmt: skip
    parser.add_argument("--out", type=Path, help="also write clouds, tables and the page into this folder")


def run(options: Namespace) -> int:
    """Answer the query, write the answer if requested, and print it."""
    start = time.monotonic()

    from xmask3d.cli.result_table import print_result
    from xmask3d.segment import folder

    if options.out:
        folder.check_places(options.out)
    file = folder.features_file(options.features)

    from xmask3d.segment.query import query_features, text_encoder
    from xmask3d.segment.saved_features import PointFeatures

    features = PointFeatures.load(file)
    result = query_features(features, options.words, text_encoder(features), options.background)
    seconds = time.monotonic() - start
    if options.out:
        from xmask3d.files import locked
        from xmask3d.segment.result_files import write_result

        said = folder.read_summary(options.features) if options.features.is_dir() else {}
        result.about |= {"features": folder.name_features(file, options.out), "words": options.words}
        result.about |= {"path": said["path"]} if "path" in said else {}  # the folder keeps belonging to that scan
        with locked(options.out, "an answer"):
            write_result(result, options.out)
    print_result(result)
    print(f"answered in {seconds:.2f} s")
    if options.out:
        print(f"everything is in {options.out}")
    return 0
