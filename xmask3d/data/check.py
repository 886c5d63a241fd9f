"""Looks through a whole data set before a training does: what is there, and every file that is missing or bad."""

from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from xmask3d.benchmark import Benchmark
from xmask3d.data.files import read_picture
from xmask3d.data.prepare.run import run_all
from xmask3d.data.samples import Limits, evenly_spaced
from xmask3d.data.scannet import ScanNetReader
from xmask3d.data.scene import Scene
from xmask3d.data.visibility import Visibility
from xmask3d.errors import UserError

POOR_AGREEMENT = 0.3  # share of visible points whose label equals their pixel's, below which ids or poses are wrong


@dataclass
class SplitReport:
    """What a split, or one scene of it, holds.

    Attributes:
        problems: one line a bad file or scene.
        scenes, views, usable: how many; `usable` views show enough to be trained on.
        points: points of all scenes. points_per_view: visible points of each readable view.
        class_points: K + 1 points per class, the ignored last.
        class_pixels: K + 1 pixels per class, the ignored last.
        image_sizes, depth_sizes: how many stored pictures have which (height, width).
        with_caption, with_labels: views with a sentence, and with a label picture.
        agree, compared: visible points whose label equals their pixel's, and all that have both.
    """

    problems: list[str] = field(default_factory=list)
    scenes: int = 0
    views: int = 0
    usable: int = 0
    points: int = 0
    points_per_view: list[int] = field(default_factory=list)
    class_points: Counter = field(default_factory=Counter)
    class_pixels: Counter = field(default_factory=Counter)
    image_sizes: Counter = field(default_factory=Counter)
    depth_sizes: Counter = field(default_factory=Counter)
    with_caption: int = 0
    with_labels: int = 0
    agree: int = 0
    compared: int = 0

    def add(self, other: "SplitReport") -> None:
        """Add another report to this one."""
        for name, value in vars(other).items():
            setattr(self, name, getattr(self, name) + value)


def check_split(
    reader: ScanNetReader,
    limits: Limits,
    visibility: Visibility,
    *,
    max_views: int | None = None,
    workers: int = 1,
) -> SplitReport:
    """Read every scene and view of a split.

    Args:
        reader: of the split.
        limits: what a view must show to count as usable.
        visibility: finds the visible points.
        max_views: look at this many views of each scene only, evenly spaced; file names are checked for all.
        workers: processes.
    """
    total = SplitReport()
    jobs = ((name, reader, limits, visibility, max_views) for name in reader.scene_names)
    results = {job[0]: result for job, result in run_all(check_scene, jobs, workers)}
    for name in reader.scene_names:
        result = results[name]
        total.add(result if isinstance(result, SplitReport) else SplitReport([str(result)], scenes=1))
    _check_whole(total, reader.benchmark)
    return total


def check_scene(
    name: str, reader: ScanNetReader, limits: Limits, visibility: Visibility, max_views: int | None = None
) -> SplitReport:
    """Read one scene and its views."""
    report = SplitReport(scenes=1)
    try:
        scene = reader.read_scene(name)
    except UserError as error:
        report.problems.append(str(error))
        return report
    report.points = len(scene.points)
    if scene.labels is not None:
        report.class_points = _count(scene.labels)
    if not scene.view_names:
        report.problems.append(f"{reader.view_folder(name) / 'color'}: no frames")
    report.views = len(scene.view_names)
    report.problems += _unpaired(reader.view_folder(name), scene.view_names)
    for view in evenly_spaced(scene.view_names, max_views):
        try:
            _check_view(scene, view, reader, limits, visibility, report)
        except UserError as error:
            if str(error) not in report.problems:
                report.problems.append(str(error))
    return report


def _check_view(
    scene: Scene, name: str, reader: ScanNetReader, limits: Limits, visibility: Visibility, report: SplitReport
) -> None:
    folder = reader.view_folder(scene.name)
    color_size = read_picture(reader.color_path(scene.name, name)).shape[:2]
    depth_path = folder / "depth" / f"{name}.png"
    depth_size = read_picture(depth_path).shape
    report.image_sizes[color_size] += 1
    report.depth_sizes[depth_size] += 1
    if len(depth_size) != 2:
        raise UserError(f"{depth_path}: has {depth_size[-1]} channels, expected one of 16 bits")
    view = reader.read_view(scene.name, name)
    if not view.depth.any():
        raise UserError(f"{depth_path}: is empty")
    index, pixels = visibility.find(scene, view)
    classes = None if scene.labels is None else scene.labels[index]
    report.points_per_view.append(len(index))
    report.usable += limits.accept(classes, len(index), reader.benchmark.num_classes)
    report.with_caption += bool(view.caption)
    if view.label_map is None:
        return
    report.with_labels += 1
    report.class_pixels += _count(view.label_map)
    if classes is not None:
        seen = view.label_map[pixels[:, 0], pixels[:, 1]]
        both = (classes != reader.benchmark.num_classes) & (seen != reader.benchmark.num_classes)
        report.compared += int(both.sum())
        report.agree += int((classes[both] == seen[both]).sum())


def _unpaired(folder: Path, views: list[str]) -> Iterable[str]:
    """Frames without colour though other files have them, and the other way round."""
    problems = []
    for part, suffix in (("depth", ".png"), ("pose", ".txt")):
        stems = {path.stem for path in (folder / part).glob(f"*{suffix}")}
        problems += [f"{folder / part / (view + suffix)}: missing" for view in views if view not in stems]
        extra = sorted(stems - set(views), key=lambda stem: (len(stem), stem))
        problems += [f"{folder / 'color' / stem}.jpg: missing, though {part}/{stem}{suffix} is there" for stem in extra]
    return dict.fromkeys(problems)


def _count(ids: np.ndarray) -> Counter:
    values, counts = np.unique(ids, return_counts=True)
    return Counter(dict(zip(values.tolist(), counts.tolist(), strict=True)))


def _check_whole(report: SplitReport, benchmark: Benchmark) -> None:
    """Faults that no single file shows."""
    labelled = sum(count for label, count in report.class_points.items() if label != benchmark.num_classes)
    if report.class_points and not labelled:
        report.problems.append(f"no point has a label of {benchmark.name}: the files are of another list of classes")
    if report.compared and report.agree < POOR_AGREEMENT * report.compared:
        report.problems.append(
            f"only {report.agree / report.compared:.0%} of the visible points have the label of their pixel: "
            "poses, intrinsics or label ids are wrong"
        )


def describe(report: SplitReport, benchmark: Benchmark) -> str:
    """The report as text, without its problems."""
    lines = [
        f"scenes {report.scenes}, points {report.points}, views {report.views}",
        f"views looked at {sum(report.image_sizes.values())}, usable {report.usable}, "
        f"with label picture {report.with_labels}, with caption {report.with_caption}",
        f"image sizes {_sizes(report.image_sizes)}; depth sizes {_sizes(report.depth_sizes)}",
    ]
    if report.points_per_view:
        low, middle, high = np.percentile(report.points_per_view, [5, 50, 95])
        lines.append(f"visible points per view: median {middle:.0f}, 5-95 % {low:.0f}-{high:.0f}")
    if report.compared:
        lines.append(f"visible points with the label of their pixel: {report.agree / report.compared:.1%}")
    for what, counts in (("points", report.class_points), ("pixels", report.class_pixels)):
        absent = [name for i, name in enumerate(benchmark.class_names) if not counts[i]]
        if counts and absent:
            shown = ", ".join(absent[:20]) + (f" and {len(absent) - 20} more" if len(absent) > 20 else "")
            lines.append(f"classes without {what}: {shown}")
    return "\n".join(f"  {line}" for line in lines)


def _sizes(sizes: Counter) -> str:
    return ", ".join(f"{' x '.join(map(str, size))} ({count})" for size, count in sizes.most_common()) or "none"
