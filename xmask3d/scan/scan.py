"""Access to any scan: detects its format and irregularities, and gives points and views to the networks."""

import shutil
import weakref
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from pathlib import Path

import numpy as np

from xmask3d.data.files import read_points
from xmask3d.data.scannet import SCANNET, ScanNetReader
from xmask3d.data.scene import Scene, View
from xmask3d.data.segments import read_segments
from xmask3d.errors import UserError, printable
from xmask3d.geometry.camera import scale_matrix
from xmask3d.geometry.voxels import quantise
from xmask3d.resources import scan_path
from xmask3d.scan.agreement import check_recording
from xmask3d.scan.clouds import Cloud, map_origin, read_cloud
from xmask3d.scan.coverage import cells_of, choose_views
from xmask3d.scan.decisions import cloud_of, find_scale, fingerprint, warn_of_options, with_options
from xmask3d.scan.frames import Frames
from xmask3d.scan.gravity import Gravity, find_up, refine
from xmask3d.scan.layouts import shortened
from xmask3d.scan.options import UNITS, ScanOptions
from xmask3d.scan.recording import Recording, camera_to_world, resample
from xmask3d.scan.sensor_streams import open_sens
from xmask3d.scan.sources import archive_name, find_scan, is_archive, unpack
from xmask3d.scan.views import lift
from xmask3d.scan.without_depth import with_rendered_depth

ALL_VIEWS_UP_TO = 120  # a longer recording is reduced to the views that cover it best
CANDIDATE_FRAMES = 600  # frames considered for the choice of views and for fusion


@dataclass
class Scan:
    """Scan that is ready for the networks; a `SceneReader` of one scene.

    Attributes:
        name, kind: name of the scan and description of its kind.
        scene: points for the networks, metres, z up, with the names of the views to use.
        points: n x 3 float32, every point in the scan's own frame, in metres from `origin`.
        colors: n x 3 uint8 or None. origin: 3 float64.
        kept_index: n int64, row of `scene.points` that represents each point; None if the points are the same.
        rotation: 3 x 3, from the scan's frame to z up.
        lines: findings, one sentence each; warnings begin with "warning:".
        frame_count: number of frames in the recording.
        guesses: k x 4, likely up directions in the scan's frame and their log probabilities, if up is uncertain.
        fingerprint: key that identifies the reading of the frames: calibration, poses, farthest depth.
        file: cloud or mesh that the points come from, or None. units_per_metre: units of that file per metre.
    """

    name: str
    kind: str
    scene: Scene
    points: np.ndarray
    colors: np.ndarray | None
    load_view: Callable[[str], View]
    origin: np.ndarray = field(default_factory=lambda: np.zeros(3))
    kept_index: np.ndarray | None = None
    rotation: np.ndarray = field(default_factory=lambda: np.eye(3))
    lines: list[str] = field(default_factory=list)
    frame_count: int = 0
    guesses: np.ndarray = field(default_factory=lambda: np.zeros((0, 4)))
    fingerprint: str = ""
    file: Path | None = None
    units_per_metre: float = 1.0

    @property
    def scene_names(self) -> list[str]:
        """Names of the scenes: a single one."""
        return [self.scene.name]

    def view_names(self, scene: str) -> list[str]:
        """Return the names of the views."""
        return self.scene.view_names

    def read_scene(self, name: str) -> Scene:
        """Return the scene; see `SceneReader`."""
        return self.scene

    def read_view(self, scene: str, view: str) -> View:
        """Return one frame on the frame grid; see `SceneReader`."""
        return self.load_view(view)

    def caption(self, scene: str, view: str) -> None:
        """Return no caption."""

    def sources(self, scene: str) -> list[Path]:
        """Return no files, because results identify a scan by `fingerprint`."""
        return []

    def visibility_files(self, scene: str, view: str) -> list[Path]:
        """Return no files, because visibility is not cached."""
        return []

    def upsample(self, values: np.ndarray) -> np.ndarray:
        """Copy values of the rows of `scene.points` to every point."""
        return values if self.kept_index is None else values[self.kept_index]

    def describe(self) -> str:
        """Format the findings as text, one line each."""
        size = np.ptp(self.scene.points, axis=0)
        views = f", {len(self.scene.view_names)} views" if self.frame_count else ", no pictures: shapes only"
        first = f"{self.name}: {self.kind}; {len(self.points):,} points{views}"
        box = f"size {size[0]:.1f} x {size[1]:.1f} x {size[2]:.1f} m (height last)"
        return "\n".join(map(printable, [first, *(f"  {line}" for line in [box, *self.lines])]))


def open_scan(path: Path | str, options: ScanOptions | None = None) -> Scan:
    """Detect the form of a scan and open it.

    Args:
        path: a scene of a processed data set (its .pth file or its folder of views), a folder of a recording, a .sens
            file, a point cloud, a folder that holds one of these somewhere, or an archive of it; "example" is the
            recording that comes with the package, unless there is a path of that name.

    Raises:
        UserError: the path is no readable scan; the message lists the known forms.
    """
    path, options = scan_path(path), options or ScanOptions()
    options.check()
    processed = _processed_paths(path)
    if processed is not None:
        return _open_processed(*processed, options)
    check_exists(path)
    return _open(path, options)


def _open(path: Path, options: ScanOptions, inside: int = 0) -> Scan:
    """Open a file or folder; `inside` is the number of archives around it."""
    if is_archive(path):
        if inside > 1:
            raise UserError(f"{path}: an archive in an archive in an archive; unpack the outer ones")
        folder = unpack(path)
        try:
            scan = _open(folder, options, inside + 1)
        except BaseException as error:
            shutil.rmtree(folder.parent, ignore_errors=True)
            if isinstance(error, UserError):  # instead of the name of a temporary folder
                raise UserError(str(error).replace(str(folder), str(path))) from error
            raise
        weakref.finalize(scan, shutil.rmtree, folder.parent, True)
        scan.name = scan.scene.name = archive_name(path)
        return scan
    notes: list[str] = []
    found = find_scan(path, notes) if path.is_dir() else open_sens(path) if path.suffix.lower() == ".sens" else path
    if isinstance(found, Recording):
        found.notes += notes
        return _open_recording(found, options)
    if is_archive(found):
        return _open(found, options, inside)
    scan = _open_cloud(found, options)
    scan.lines = [*notes, *scan.lines]
    return scan


def check_exists(path: Path) -> None:
    """Raise `UserError` if a path is neither a file or folder nor a scene of a processed data set."""
    if not scan_path(path).exists() and _processed_paths(path) is None:
        raise UserError(f"{path}: no such file or folder")


def _processed_paths(path: Path) -> tuple[Path, str, str] | None:
    """Return root, split and scene if the path names a scene of a data set in ScanNet's processed layout."""
    if path.suffix == ".pth" and path.is_file():
        name = path.stem.removesuffix("_vh_clean_2")
        return path.parent.parent.parent, path.parent.name, name
    for root in (path.parent.parent, path.parent):
        found = sorted(root.glob(f"scannet_3d/*/{path.name}_vh_clean_2.pth")) if path.name else []
        if found and (path.parent.name == "scannet_2d" or not path.exists()):
            return root, found[0].parent.name, path.name
    return None


def _open_processed(root: Path, split: str, name: str, options: ScanOptions) -> Scan:
    """Open a data set's scene as evaluation does: every view and, up to `max_points`, every point unchanged."""
    benchmark_free = _PointsReader(root, split)
    ignored = ("depth_scale", "farthest", "intrinsics", "poses", "unit", "scale", "up", "voxel_size")
    lines = [f"scene of a processed data set in {root} ({split})", *options.unused("a processed scene", *ignored)]
    points, colors, _ = read_points(benchmark_free.scene_path(name), lines.append)
    views = benchmark_free.view_names(name)

    def load(view: str) -> View:
        return benchmark_free.read_view(name, view)

    bytes_ = np.rint((np.clip(colors, -1, 1) + 1) * 127.5).astype(np.uint8)
    kept_index, kept = _thin_out(points, options, lines)
    segments = read_segments(benchmark_free.scene_path(name), len(points))
    scene = Scene(name, points[kept], colors[kept], None, views, None if segments is None else segments[kept])
    if options.views is not None and options.views < len(views):

        def seen(index: int) -> np.ndarray:
            view = load(views[index])
            return cells_of(_lift_view(view).reshape(-1, 3))

        chosen = choose_views(len(views), seen, options.views)
        scene.view_names = [views[i] for i in chosen]
        lines.append(f"{len(chosen)} of {len(views)} views chosen by what they see")
    return Scan(name, "processed ScanNet scene", scene, points, bytes_, load, kept_index=kept_index, lines=lines,
                frame_count=len(views))  # fmt: skip


class _PointsReader(ScanNetReader):
    """Reader of the data set without labels, which would need a benchmark."""

    def __init__(self, root: Path, split: str) -> None:
        from xmask3d.splits import Benchmark

        super().__init__(SCANNET, root, split, Benchmark("scan", (), {"base": (), "novel": ()}, (), ()))

    def read_label_map(self, scene: str, view: str) -> None:
        """Return no labels."""


def _lift_view(view: View) -> np.ndarray:
    k = view.intrinsics
    matrix = np.array([[k.fx, 0, k.cx], [0, k.fy, k.cy], [0, 0, 1.0]])
    rows, columns = resample(view.depth.shape, (60, 80))
    return lift(view.depth[rows][:, columns], scale_matrix(matrix, view.depth.shape, (60, 80)), view.pose)


def _open_cloud(path: Path, options: ScanOptions) -> Scan:
    cloud = read_cloud(path, options.units_per_metre)
    gravity = refine(cloud.points, options.up) if options.up else find_up(cloud.points, camera=cloud.camera)
    ignored = options.unused("a cloud", "views", "depth_scale", "farthest", "intrinsics", "poses", "voxel_size")
    lines = [*ignored, *cloud.notes, gravity.words]
    scan = _finish(path.stem, f"point cloud {path.name}", cloud, gravity, [], _no_view, lines, options)
    scan.guesses = gravity.guesses
    segments = read_segments(path, len(scan.points))
    if segments is not None and scan.kept_index is not None:
        segments = segments[np.unique(scan.kept_index, return_index=True)[1]]
    scan.scene.segments = segments
    return scan


def _no_view(name: str) -> View:
    raise UserError(f"view {name}: this scan has no pictures")


def _finish(
    name: str,
    kind: str,
    cloud: Cloud,
    gravity: Gravity,
    views: list[str],
    load: Callable[[str], View],
    lines: list[str],
    options: ScanOptions,
    frame_count: int = 0,
) -> Scan:
    """Rotate the cloud upright and, if it is very large, select a part of its points."""
    points = cloud.points
    colors = np.zeros(points.shape, np.float32)
    if cloud.colors is not None:
        colors = cloud.colors.astype(np.float32) / 127.5 - 1
    kept_index, kept = _thin_out(points, options, lines)
    points, colors = points[kept], colors[kept]
    if len(points) < 50:
        lines.append(f"warning: only {len(points)} points; expect nothing of the result")
    upright = (points @ gravity.rotation.T.astype(np.float32)).astype(np.float32)
    scene = Scene(name, upright, colors, None, views)
    return Scan(name, kind, scene, cloud.points, cloud.colors, load, cloud.origin, kept_index, gravity.rotation, lines,
                frame_count, file=cloud.file, units_per_metre=cloud.units_per_metre)  # fmt: skip


def _thin_out(
    points: np.ndarray, options: ScanOptions, lines: list[str]
) -> tuple[np.ndarray | None, np.ndarray | slice]:
    """Return each point's representative (None for itself) and the points to keep; `lines` reports a reduction."""
    if len(points) <= options.max_points:
        return None, slice(None)
    kept_index, kept, spacing = _thin(points, options.max_points)
    lines.append(f"{len(points):,} points, reduced to {len(kept):,} of them, {spacing * 100:g} cm apart")
    return kept_index, kept


def _thin(points: np.ndarray, limit: int) -> tuple[np.ndarray, np.ndarray, float]:
    """Keep one point per voxel of sufficient size: return each point's representative, those kept, and the spacing."""
    spacing = 0.01
    while True:
        voxels = quantise(np.floor(points.astype(np.float64) / spacing))
        if len(voxels.first_point) <= limit:
            return voxels.point_to_voxel, voxels.first_point, spacing
        spacing *= 1.5


def _open_recording(recording: Recording, options: ScanOptions) -> Scan:
    asked = with_options(recording, options)
    if recording.rendered and options.unit:  # scale of the cloud, and therefore of the poses
        options = replace(options, unit=None, scale=1 / UNITS[options.unit])
    ignored = options.unused("frames without a cloud", "unit") if recording.cloud is None else []
    if recording.rendered:
        ignored += options.unused("frames whose depth is rendered", "depth_scale", "voxel_size")
        recording = asked = with_rendered_depth(asked)
    verdict = check_recording(asked)
    lines = [f"{len(recording)} frames, colour {_by(recording.color_size)}, depth {_by(recording.depth_size)}"]
    stand = [np.sign(height - width) for height, width in (recording.color_size, recording.depth_size)]
    if stand[0] * stand[1] < 0:
        lines.append("warning: pictures stand and depth maps lie, or the reverse: one kind was turned; turn it back")
    notes = sorted(recording.notes, key=lambda note: not note.startswith("warning:"))
    # notes on files that were not understood come before guesses
    warned = sum(note.startswith("warning:") for note in notes)
    lines += [*ignored, *notes[:warned], *verdict.lines, *warn_of_options(recording, asked, verdict), *notes[warned:]]
    recording, calibration = asked, verdict.calibration
    world = camera_to_world(recording.poses, calibration.convention).copy()
    scale, given = 1.0, recording.unitless or options.scale is not None
    if given:
        scale, words = find_scale(recording, calibration, world, options)
        lines.append(words)
        world[:, :3, 3] *= scale
        calibration = replace(calibration, units_per_metre=calibration.units_per_metre / scale)
    origin = map_origin(np.median(world[:, :3, 3], axis=0))
    world[:, :3, 3] -= origin
    if origin.any():
        lines.append(f"cameras are far from zero (a map's?); computed relative to ({origin[0]:.0f}, {origin[1]:.0f})")
    candidates = np.unique(np.linspace(0, len(recording) - 1, min(len(recording), CANDIDATE_FRAMES)).astype(int))
    frames = Frames(recording, calibration, world, options.farthest)
    cloud = cloud_of(recording, frames, candidates, origin, options, lines, 1 / scale if given else None)
    candidates = np.setdiff1d(candidates, list(frames.damaged))
    cameras = world[:, :3, :3]
    gravity = refine(cloud.points, options.up) if options.up else find_up(cloud.points, cameras, recording.up)
    lines.append(gravity.words)
    scan_name = recording.path.stem if recording.path.is_file() else recording.path.resolve().name
    turned = frames.turn(gravity.rotation, scan_name)
    if turned:
        lines.append(f"{turned} pictures lie on their side or head and are turned upright")
    parts = len(frames.view_names(int(candidates[0])))
    if parts > 1:
        lines.append(f"pictures have an unusual shape: each is cut into {parts} overlapping views")
    wanted = options.views or ALL_VIEWS_UP_TO // parts
    chosen = candidates[choose_views(len(candidates), lambda i: frames.coarse_cells(int(candidates[i])), wanted)]
    chosen = np.array([frame for frame in chosen if frames.is_whole(int(frame))], int)
    lines += shortened([f"left out: {why}" for why in frames.damaged.values()])
    if not len(chosen):
        raise UserError(f"{recording.path}: no frame is complete ({next(iter(frames.damaged.values()))})")
    if len(chosen) < len(recording) - len(frames.damaged):
        lines.append(f"{len(chosen)} of {len(recording)} frames chosen by what they see")
    names = [name for frame in chosen for name in frames.view_names(int(frame))]
    scan = _finish(scan_name, recording.kind, cloud, gravity, names, frames.view, lines, options, len(recording))
    scan.fingerprint = fingerprint(calibration, world, options.farthest)
    return scan


def _by(size: tuple[int, int]) -> str:
    return f"{size[1]} x {size[0]}"
