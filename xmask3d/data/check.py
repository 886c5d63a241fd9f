"""Check of a complete data set before training: reports its content and every missing or bad file."""

from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from xmask3d.data.datasets import UNCAPTIONED, evenly_spaced
from xmask3d.data.files import LostPose, picture_size, read_picture, visible_files
from xmask3d.data.prepare.many import run_all
from xmask3d.data.scannet import ScanNetReader
from xmask3d.data.scene import Scene
from xmask3d.data.view_settings import ViewFilter, ViewSettings
from xmask3d.data.visibility import Visibility
from xmask3d.errors import UserError, some
from xmask3d.splits import Benchmark

POOR_AGREEMENT = 0.3  # ids or poses are wrong if a smaller share of visible points has the label of its pixel
UNLABELLED = (-100, 255)  # values that may mean "no label" in files, besides ids without a class


@dataclass
class SplitReport:
    """Content of a split, or of one scene of it.

    Attributes:
        problems: one line per bad file or scene.
        warnings: one line per oddity that may be intended.
        unlabelled: missing folders of label pictures of scenes that have frames.
        blank: label pictures that show no class of the benchmark.
        scenes, views, usable: numbers of scenes, of views, and of views that show enough for training.
        lost: number of views with an infinite pose, as ScanNet has where the camera was lost.
        points: number of points in all scenes.
        points_per_view: number of visible points in each readable view.
        class_points: number of points per class, K + 1 numbers; ignored points come last.
        class_pixels: number of pixels per class, K + 1 numbers; ignored pixels come last.
        image_sizes, depth_sizes: number of stored pictures by (height, width).
        with_caption, with_labels: numbers of views with a caption, and with a label picture.
        agree, compared: numbers of visible points whose label equals that of their pixel, and of all that have both
            labels.
    """

    problems: list[str] = field(default_factory=list)
    warnings: list[str] = field(default_factory=list)
    unlabelled: list[str] = field(default_factory=list)
    blank: list[str] = field(default_factory=list)
    scenes: int = 0
    views: int = 0
    usable: int = 0
    lost: int = 0
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
    settings: ViewSettings,
    *,
    max_views: int | None = None,
    workers: int = 1,
    training: bool = False,
    captions: bool = False,
    published: int | None = None,
) -> SplitReport:
    """Read every scene and view of a split.

    Args:
        reader: reader of the split.
        settings: settings for the points that a view sees, and for a view to count as usable.
        max_views: number of views to read per scene, evenly spaced; file names are checked for all views.
        workers: number of processes.
        training: the split is used for training, which needs label pictures.
        captions: losses need captions of the views.
        published: number of scenes of the published split, see `published_scenes`.
    """
    total = SplitReport()
    jobs = ((name, reader, settings, max_views) for name in reader.scene_names)
    results = {job[0]: result for job, result in run_all(check_scene, jobs, workers)}
    for name in reader.scene_names:
        result = results[name]
        total.add(result if isinstance(result, SplitReport) else SplitReport([str(result)], scenes=1))
    _check_whole(total, reader.benchmark, training, captions)
    if published is not None and total.scenes != published:
        total.warnings.append(
            f"{total.scenes} scenes, where the published {reader.spec.name} has {published}; "
            "scores on a part of it do not compare with others"
        )
    return total


def published_scenes(reader: ScanNetReader) -> int | None:
    """Return the number of scenes of the published split; None if unknown or if other data imitate its layout."""
    spec = reader.spec
    imitated = spec.imitated is not None and (reader.root / spec.imitated).is_file()
    return None if imitated else spec.scenes.get(reader.split)


def check_scene(name: str, reader: ScanNetReader, settings: ViewSettings, max_views: int | None = None) -> SplitReport:
    """Read one scene and its views."""
    report = SplitReport(scenes=1)
    visibility = Visibility(settings.border, settings.depth_tolerance)
    try:
        points, colors, ids = reader.read_files(name, report.problems.append)
    except UserError as error:
        report.problems.append(str(error))
        return report
    labels = None if ids is None else reader.benchmark.classes_of_points(ids)
    scene = Scene(name, points, colors, labels, reader.view_names(name))
    report.problems += _faults_of_points(reader, name, points, ids)
    report.points = len(points)
    if labels is not None:
        report.class_points = _count(labels)
    if not scene.view_names:
        report.problems.append(f"{reader.view_folder(name) / 'color'}: no frames")
    elif not (folder := reader.label_path(name, scene.view_names[0]).parent).is_dir():
        report.unlabelled.append(str(folder))
    report.views = len(scene.view_names)
    report.problems += _unpaired(reader.view_folder(name), scene.view_names)
    views = evenly_spaced(scene.view_names, max_views)
    report.problems += _odd_sizes(name, views, reader)
    for view in views:
        try:
            _check_view(scene, view, reader, settings.filter, visibility, report)
        except LostPose:
            report.lost += 1
        except UserError as error:
            if str(error) not in report.problems:
                report.problems.append(str(error))
    if report.points_per_view and not report.usable:
        report.warnings.append(
            f"scene {name}: none of the {len(views)} views looked at can be used{_requirements(settings.filter)}"
        )
    return report


def _faults_of_points(reader: ScanNetReader, scene: str, points: np.ndarray, ids: np.ndarray | None) -> Iterable[str]:
    path = reader.scene_path(scene)
    if not len(points):
        yield f"{path}: has no points"
        return
    if ids is None:
        yield f"{path}: has no label ids; training and evaluation need them"
    elif fault := _unknown_ids(ids, reader, 0):
        yield f"{path}: {fault}"


def _unknown_ids(ids: np.ndarray, reader: ScanNetReader, kind: int) -> str | None:
    """Describe bad ids in a 3D file (kind 0) or a label picture (kind 1); nothing for the user's own class lists."""
    largest = reader.spec.largest_ids
    if largest is None or reader.benchmark.name.partition("/")[0] != reader.spec.class_list:
        return None
    values, counts = np.unique(ids, return_counts=True)
    bad = ((values < 0) | (values > largest[kind])) & ~np.isin(values, UNLABELLED)
    if not bad.any():
        return None
    shown = some(values[bad].tolist(), 5)
    return f"{counts[bad].sum() / ids.size:.1%} of its label ids are none of 0 to {largest[kind]} ({shown})"


def _odd_sizes(scene: str, views: list[str], reader: ScanNetReader) -> Iterable[str]:
    """Describe pictures of unusual size for their kind in the scene; unreadable ones are skipped."""
    folder = reader.view_folder(scene)
    for kind, path_of in (
        ("colour", lambda view: reader.color_path(scene, view)),
        ("depth", lambda view: folder / "depth" / f"{view}.png"),
    ):
        sizes = {path: size for path in map(path_of, views) if (size := picture_size(path))}
        if not sizes:
            continue
        usual = Counter(sizes.values()).most_common(1)[0][0]
        for path, size in sizes.items():
            if size != usual:
                yield f"{path}: is {_size(size)}, most {kind} pictures of the scene are {_size(usual)}"


def _requirements(view_filter: ViewFilter) -> str:
    return (
        f": one needs {view_filter.min_points} to {view_filter.max_points} visible points, "
        f"{view_filter.min_labelled} of them of a class (data.min_points, data.max_points, data.min_labelled)"
    )


def _check_view(
    scene: Scene, name: str, reader: ScanNetReader, view_filter: ViewFilter, visibility: Visibility, report: SplitReport
) -> None:
    folder = reader.view_folder(scene.name)
    color_size = read_picture(reader.color_path(scene.name, name)).shape[:2]
    depth_path = folder / "depth" / f"{name}.png"
    depth = read_picture(depth_path)
    depth_size = depth.shape
    report.image_sizes[color_size] += 1
    report.depth_sizes[depth_size] += 1
    if len(depth_size) != 2:
        raise UserError(f"{depth_path}: has {depth_size[-1]} channels, expected one of 16 bits")
    if depth.dtype.itemsize < 2:  # in millimetres the depth would end at a quarter of a metre
        raise UserError(f"{depth_path}: has 8 bits, expected 16 (depth in millimetres)")
    view = reader.read_view(scene.name, name)
    if not view.depth.any():
        raise UserError(f"{depth_path}: is empty")
    label_map = view.label_map
    index, pixels = visibility.find(scene, view)
    classes = None if scene.labels is None else scene.labels[index]
    report.points_per_view.append(len(index))
    report.usable += view_filter.accept(classes, len(index), reader.benchmark.num_classes)
    report.with_caption += bool(view.caption)
    if label_map is None:
        return
    report.with_labels += 1
    _check_label_picture(reader.label_path(scene.name, name), (color_size, depth_size), reader, report)
    report.class_pixels += _count(label_map)
    if classes is not None:
        seen = label_map[pixels[:, 0], pixels[:, 1]]
        both = (classes != reader.benchmark.num_classes) & (seen != reader.benchmark.num_classes)
        report.compared += int(both.sum())
        report.agree += int((classes[both] == seen[both]).sum())


def _check_label_picture(
    path: Path, sizes: tuple[tuple[int, ...], ...], reader: ScanNetReader, report: SplitReport
) -> None:
    benchmark = reader.benchmark
    ids = read_picture(path)
    if ids.shape not in sizes:
        others = " and ".join(_size(size) for size in dict.fromkeys(sizes))
        report.problems.append(f"{path}: is {_size(ids.shape)}, its colour and depth are {others}")
    if fault := _unknown_ids(ids, reader, 1):
        report.problems.append(f"{path}: {fault}")
    elif (benchmark.classes_of_pixels(ids) == benchmark.num_classes).all():
        report.blank.append(str(path))


def _unpaired(folder: Path, views: list[str]) -> Iterable[str]:
    """Describe frames that lack colour but have other files, and the reverse."""
    problems = []
    for part, suffix in (("depth", ".png"), ("pose", ".txt")):
        stems = {path.stem for path in visible_files(folder / part) if path.suffix == suffix}
        problems += [f"{folder / part / (view + suffix)}: missing" for view in views if view not in stems]
        extra = sorted(stems - set(views), key=lambda stem: (len(stem), stem))
        problems += [f"{folder / 'color' / stem}.jpg: missing, though {part}/{stem}{suffix} is there" for stem in extra]
    return dict.fromkeys(problems)


def _count(ids: np.ndarray) -> Counter:
    values, counts = np.unique(ids, return_counts=True)
    return Counter(dict(zip(values.tolist(), counts.tolist(), strict=True)))


def _check_whole(report: SplitReport, benchmark: Benchmark, training: bool, captions: bool) -> None:
    """Find faults that only show across files."""
    looked = len(report.points_per_view)
    if training and report.unlabelled and not report.with_labels:
        report.problems.append(
            f"no view has a label picture, which training needs ({report.unlabelled[0]}: missing; "
            "xmask3d prepare writes them)"
        )
    elif training:
        report.problems += [f"{folder}: missing; training needs label pictures" for folder in report.unlabelled]
    if looked and not report.usable:
        report.problems.append(f"none of the {looked} views looked at can be used; the warnings name their scenes")
    if captions and looked and report.with_caption < looked:
        text = (
            "caption losses have weights (loss.caption_fused, _3d, _2d); xmask3d download captions gets the released "
            "captions.json of ScanNet, xmask3d caption makes one"
        )
        if report.with_caption:
            missing = looked - report.with_caption
            found = report.problems if missing > UNCAPTIONED * looked else report.warnings
            found.append(f"{missing} of {looked} views have no caption: {text}")
        else:
            report.problems.append(f"no view has a caption, captions.json is missing or of other scenes: {text}")
    if report.lost:
        report.warnings.append(
            f"{report.lost} views have an infinite pose, as where ScanNet's camera was lost; they are not used"
        )
    if report.blank:
        report.warnings.append(
            f"{len(report.blank)} label pictures show no class of {benchmark.name}: " + some(report.blank, 5)
        )
    labelled = sum(count for label, count in report.class_points.items() if label != benchmark.num_classes)
    if report.class_points and not labelled:
        report.problems.append(f"no point has a label of {benchmark.name}: the files are of another list of classes")
    if report.compared and report.agree < POOR_AGREEMENT * report.compared:
        report.problems.append(
            f"only {report.agree / report.compared:.0%} of the visible points have the label of their pixel: "
            "poses, intrinsics or label ids are wrong"
        )


def describe(report: SplitReport, benchmark: Benchmark) -> str:
    """Format the report as text, without its problems."""
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
            lines.append(f"classes without {what}: {some(absent, 20)}")
    return "\n".join(f"  {line}" for line in lines)


def _sizes(sizes: Counter) -> str:
    return ", ".join(f"{_size(size)} ({count})" for size, count in sizes.most_common()) or "none"


def _size(size: tuple[int, ...]) -> str:
    return " x ".join(map(str, size))
