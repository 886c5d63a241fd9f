"""Scores of existing predictions, for `xmask3d evaluate --predictions`."""

from argparse import ArgumentParser, Namespace
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING

from xmask3d.errors import UserError

if TYPE_CHECKING:
    from xmask3d.config import Config
    from xmask3d.engine.results import Results
    from xmask3d.metrics.report import PredictionResults

INSTANCE_TRUTH = "instance_gt"
"""Folder below `data.root` with a folder per split, in which `<scene>.txt` has the object of every point."""

SCORING = (
    "method", "ids", "objects", "class_agnostic", "restricted", "foreground", "background", "absent", "resamples",
    "seed",
)  # fmt: skip
"""Options of `add_scoring` that have no meaning without predictions."""


def add_scoring(parser: ArgumentParser) -> None:
    """Declare the options for `--predictions`; docs/scoring.md explains formats and protocols."""
    group = parser.add_argument_group(
        "predictions of any method", "scored in place of a checkpoint; docs/scoring.md has formats and protocols"
    )
    group.add_argument("--predictions", type=Path, metavar="FOLDER", help="a file (txt, npz, ply) or index a scene")
    group.add_argument("--method", metavar="NAME", help="name for tables (default: that of the folder)")
    group.add_argument(
        "--ids",
        choices=("scannet", "points", "index"),
        help="kind of the label ids (default: text scannet, else index)",
    )
    group.add_argument(
        "--objects", type=Path, metavar="FOLDER",
        help=f"<scene>.txt with class id * 1000 + object of each point (default: {INSTANCE_TRUTH}/<split> of the data)",
    )  # fmt: skip
    group.add_argument("--class-agnostic", action="store_true", help="compare instances without their classes")
    group.add_argument("--restricted", action="store_true", help="labels were chosen among the foreground classes only")
    group.add_argument("--foreground", default="foreground", metavar="GROUP", help="class group behind f-mIoU")
    group.add_argument(
        "--background", choices=("dropped", "kept"), default="dropped",
        help="points of other classes are left out of f-mIoU (default), or are false positives",
    )  # fmt: skip
    group.add_argument(
        "--absent", choices=("left_out", "zero"), default="left_out",
        help="foreground classes that never occur are left out of f-mIoU (default), or count 0",
    )  # fmt: skip
    group.add_argument("--resamples", type=int, default=1000, metavar="N", help="of the scenes, for intervals (1000)")
    group.add_argument("--seed", type=int, default=0, help="of the resamples (0)")


def score(options: Namespace, config: "Config") -> "PredictionResults":
    """Score a folder of predictions on the validation split of a configuration, and write all files.

    Raises:
        UserError: predictions, truth or options cannot be used.
    """
    from xmask3d.build import build_reader
    from xmask3d.data.predictions import PredictionFolder, pair_scenes
    from xmask3d.data.scene import choose_scenes
    from xmask3d.metrics.predictions import score_predictions
    from xmask3d.metrics.statistics import Protocol
    from xmask3d.resources import find_file
    from xmask3d.splits import load_benchmark

    if options.resamples < 0:
        raise UserError(f"--resamples {options.resamples}: is 0 or more")
    benchmark = load_benchmark(config.benchmark)
    if options.foreground not in benchmark.groups:
        raise UserError(f"--foreground {options.foreground}: no such class group; known: {', '.join(benchmark.groups)}")
    reader = build_reader(config, benchmark, config.data.val_split)
    names = choose_scenes(reader, options.scenes)
    folder = PredictionFolder(options.predictions, benchmark, options.ids)
    others = folder.check_scenes(names)
    if others:
        print(f"{len(others)} files are of none of these scenes and are left out, such as {others[0]}")
    default = find_file(config.data.root) / INSTANCE_TRUTH / config.data.val_split
    objects = options.objects or (default if default.is_dir() else None)
    protocol = Protocol(
        predictions="restricted" if options.restricted else "free",
        foreground=options.foreground,
        background=options.background,
        absent=options.absent,
        class_agnostic=options.class_agnostic,
    )
    results = score_predictions(
        pair_scenes(reader, folder, names, objects),
        benchmark,
        protocol,
        method=options.method or options.predictions.resolve().name,
        about={
            "predictions": str(options.predictions.resolve()),
            "data": {"layout": config.data.layout, "root": str(config.data.root), "split": config.data.val_split},
        },
        resamples=options.resamples,
        seed=options.seed,
    )
    results.about["ids"] = options.ids or "by format"
    results.about["files"] = folder.digests
    results.about["points_without_class"] = folder.without_class
    return results


def score_objects(options: Namespace, config: "Config", results: "Results") -> None:
    """Write labels and objects of an evaluation in the format of ScanNet's benchmarks, and score these files.

    The files are written to `predictions/` in the evaluation's folder, the scores to `predictions/scores/`.
    """
    import numpy as np

    from xmask3d.data.id_files import write_prediction
    from xmask3d.engine.results import SceneResult
    from xmask3d.resources import find_file

    folder, ids = results.folder / "predictions", np.array([*results.benchmark.file_ids_2d, 0])
    for name in results.scenes:
        scene = SceneResult.load(results.folder / "scenes" / f"{name}.npz")
        assert scene is not None and scene.objects is not None
        found = scene.objects
        labels, kinds = ids[scene.labels["fused"].astype(np.int64)], ids[found.classes].tolist()
        write_prediction(folder, name, labels, found.of_point, kinds, found.confidences)
    truth = options.objects or find_file(config.data.root) / INSTANCE_TRUTH / config.data.val_split
    if not truth.is_dir():
        print(f"\n{truth}: no such folder, objects in {folder} are not scored; name theirs with --objects")
        return
    options.predictions, options.method, options.scenes = folder, options.method or config.output.name, results.scenes
    scored = score(options, config)
    write(scored, folder / results.name.replace("results", "scores"))
    print(f"\n{scored.table()}\n\nobjects: {folder}")


def write(results: "PredictionResults", folder: Path) -> None:
    """Write results as text, JSON and CSV, and a bar chart of IoU by class (of AP if there are no labels)."""
    import numpy as np

    from xmask3d.metrics.scores import title_of
    from xmask3d.visualize.pictures import save_bar_chart

    results.write(folder)
    if not find_spec("matplotlib"):
        print("no matplotlib: no bar chart; pip install 'xmask3d[plots]' for it")
        return
    quantity = "ap" if results.statistics.counts is None else "iou"
    rows = [row for row in results.rows() if row.get(quantity) is not None]
    shown = [name for name in ("hiou", "f_miou", "miou_all", "ap", "ap50") if name in results.values]
    scores = ", ".join(f"{title_of(name)} {100 * results.values[name]:.1f}" for name in shown)
    save_bar_chart(
        folder / "results.png",
        [row["class"] for row in rows],
        [row[quantity] for row in rows],
        np.array(["novel" in row["groups"] for row in rows], bool),
        f"{results.method} on {results.benchmark.name}: {scores}",
        "AP" if quantity == "ap" else "IoU",
    )
