"""Cost of a training sample, beside the steps of the published pipeline in plain NumPy."""

import tempfile
from collections.abc import Callable
from dataclasses import replace
from functools import partial
from pathlib import Path

import numpy as np
import torch
from PIL import Image

from tools.benchmark.case import Case, Job, Request
from xmask3d.data.datasets import TrainingViews
from xmask3d.data.files import write_points
from xmask3d.data.scannet import LAYOUTS
from xmask3d.data.view_settings import Augmentation, ViewSettings
from xmask3d.geometry.camera import PUBLISHED_INTRINSICS
from xmask3d.geometry.voxels import axis_rotation
from xmask3d.splits import Benchmark, load_benchmark

CONTENDERS = ("plain",)
ROOM = np.array([7.0, 5.5, 2.6])
SCENE, VIEW = "scene0000_00", "0"
LOOKING_ALONG_X = np.array([[0.0, -0.3, 0.954], [-1.0, 0.0, 0.0], [0.0, -0.954, -0.3]])
NAMES = {"scannet": "scannet20/B15N4", "scannet200": "scannet200/B170N30"}


def write_scene(root: Path, count: int = 150_000, views: int = 1, seed: int = 0, split: str = "train") -> None:
    """Write one empty room of `count` points in the layout of processed ScanNet, seen by cameras that look around."""
    rng = np.random.default_rng(seed)
    points = rng.uniform(0, 1, (count, 3)) * ROOM
    areas = np.array([ROOM[1] * ROOM[2], ROOM[0] * ROOM[2], ROOM[0] * ROOM[1]])
    axis = rng.choice(3, count, p=areas / areas.sum())
    side = rng.integers(0, 2, count)
    points[np.arange(count), axis] = side * ROOM[axis]
    labels = rng.integers(0, 20, count)
    path = root / "scannet_3d" / split / f"{SCENE}_vh_clean_2.pth"
    write_points(path, points, rng.uniform(-1, 1, (count, 3)), labels)
    raw = root / "scannet_3d_200" / split / f"{SCENE}.txt"
    raw.parent.mkdir(parents=True)
    raw.write_text("\n".join(map(str, labels + 1)) + "\n", encoding="utf-8")
    folder = root / "scannet_2d" / SCENE
    for part in ("color", "depth", "pose", "label", "label_200"):
        (folder / part).mkdir(parents=True)
    for view in range(views):
        _write_view(folder, str(view), _pose(view, views), rng)


def _pose(view: int, views: int) -> np.ndarray:
    pose, angle = np.eye(4), 2 * np.pi * view / views
    pose[:3, :3] = axis_rotation(2, angle) @ LOOKING_ALONG_X
    pose[:3, 3] = [ROOM[0] / 2 - 2.3 * np.cos(angle), ROOM[1] / 2 - 1.8 * np.sin(angle), 1.6]
    return pose


def _write_view(folder: Path, name: str, pose: np.ndarray, rng: np.random.Generator) -> None:
    picture = rng.integers(0, 256, (30, 40, 3), dtype=np.uint8).repeat(8, 0).repeat(8, 1)
    Image.fromarray(picture).save(folder / "color" / f"{name}.jpg")
    Image.fromarray(_depth(pose)).save(folder / "depth" / f"{name}.png")
    ids = (picture[..., 0] % 41).astype(np.uint8)
    Image.fromarray(ids).save(folder / "label" / f"{name}.png")
    Image.fromarray(ids.astype(np.uint16)).save(folder / "label_200" / f"{name}.png")
    np.savetxt(folder / "pose" / f"{name}.txt", pose)


def _depth(pose: np.ndarray) -> np.ndarray:
    """Return the distance to the walls, 240 x 320 uint16 millimetres."""
    rows, columns = np.mgrid[:240, :320]
    camera = PUBLISHED_INTRINSICS
    rays = np.stack([(columns - camera.cx) / camera.fx, (rows - camera.cy) / camera.fy, np.ones((240, 320))], -1)
    rays = rays @ pose[:3, :3].T + 1e-9
    exits = np.maximum(-pose[:3, 3] / rays, (ROOM - pose[:3, 3]) / rays).min(-1)
    return np.round(exits * 1000).astype(np.uint16)


def plain_sample(root: Path, benchmark: Benchmark, layout: str, generator: np.random.Generator) -> tuple[int, int]:
    """Make a sample by one step after the other: everything read and computed again, ids mapped by Python calls.

    Returns:
        Number of points and of voxels.
    """
    path = root / "scannet_3d" / "train" / f"{SCENE}_vh_clean_2.pth"
    points, colors, labels = torch.load(path, weights_only=False)
    folder = root / "scannet_2d" / SCENE
    ignored = benchmark.num_classes
    if layout == "scannet200":
        class_of_file = dict(zip(benchmark.file_ids_3d, range(ignored), strict=True))
        labels = np.loadtxt(root / "scannet_3d_200" / "train" / f"{SCENE}.txt")
        labels = np.vectorize(lambda label: class_of_file.get(int(label), ignored))(labels)
    labels, binary = _plain_labels(labels, benchmark)
    colors = (colors + 1) * 127.5
    image = Image.open(folder / "color" / f"{VIEW}.jpg").convert("RGB")
    depth = np.asarray(Image.open(folder / "depth" / f"{VIEW}.png")) / 1000
    pose = np.loadtxt(folder / "pose" / f"{VIEW}.txt")
    rows, _, visible = plain_projection(points, pose, depth)
    points, colors, labels, binary = points[visible], colors[visible], labels[visible], binary[visible]
    name = "label" if layout == "scannet" else "label_200"
    plain_label_map(np.asarray(Image.open(folder / name / f"{VIEW}.png")), benchmark, (512, 512))
    plain_image(np.asarray(image), (512, 512))
    _, first, inverse = plain_voxels(points, 0.02, generator.uniform(-np.pi, np.pi))
    for array in (colors[first] / 127.5 - 1, inverse, labels.astype(np.int64), binary):
        torch.from_numpy(array)
    return len(rows), len(first)


def _plain_labels(labels: np.ndarray, benchmark: Benchmark) -> tuple[np.ndarray, np.ndarray]:
    """Return training labels and binary labels of all points of the scene, class by class."""
    ignored = benchmark.num_classes
    labels = np.where((labels == -100) | (labels > ignored), ignored, labels)
    binary, training = labels.copy(), labels.copy()
    for label in benchmark.novel:
        training[labels == label] = benchmark.num_base
        binary[labels == label] = 0
    for rank, label in enumerate(benchmark.base):
        training[labels == label] = rank
        binary[labels == label] = 1
    training[labels == ignored] = benchmark.num_base
    return training, binary


def plain_label_map(ids: np.ndarray, benchmark: Benchmark, size: tuple[int, int]) -> torch.Tensor:
    """Return training ids of a view's pixels, each mapped by a Python call, and a small unused map of base or not."""
    class_of_pixel = {benchmark.file_ids_2d[c]: rank for rank, c in enumerate(benchmark.base)}
    mapped = np.vectorize(lambda label: class_of_pixel.get(int(label), benchmark.num_base))(ids)
    small = _nearest(torch.from_numpy(ids.astype(np.int64)), (128, 128)).numpy()
    np.vectorize(lambda label: int(int(label) in class_of_pixel))(small)
    return _nearest(torch.from_numpy(mapped), size)


def plain_image(image: np.ndarray, size: tuple[int, int]) -> torch.Tensor:
    """Resize as floating-point numbers, 1 x 3 x H x W in [0, 255]."""
    planes = torch.from_numpy(image.astype(np.float32)).permute(2, 0, 1)[None]
    return torch.nn.functional.interpolate(planes, size, mode="bilinear")


def _nearest(labels: torch.Tensor, size: tuple[int, int]) -> torch.Tensor:
    return torch.nn.functional.interpolate(labels[None, None].float(), size, mode="nearest")[0, 0].long()


def plain_projection(
    points: np.ndarray, pose: np.ndarray, depth: np.ndarray
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Project all points into the frame: row and column of the visible ones, and which are visible (bool)."""
    camera = PUBLISHED_INTRINSICS
    homogeneous = np.concatenate([points.astype(np.float64), np.ones((len(points), 1))], 1)
    x, y, z, _ = np.linalg.inv(pose) @ homogeneous.T
    column = np.round(x * camera.fx / z + camera.cx).astype(int)
    row = np.round(y * camera.fy / z + camera.cy).astype(int)
    inside = (column >= 10) & (row >= 10) & (column < 310) & (row < 230)
    seen = depth[row[inside], column[inside]]
    visible = inside.copy()
    visible[inside] = np.abs(seen - z[inside]) <= 0.25 * seen
    return row[visible], column[visible], visible


def plain_voxels(points: np.ndarray, voxel_size: float, angle: float) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Return cells V x 3, first point V and voxel of each point N, in the order of a hash."""
    matrix = np.eye(4) / voxel_size
    matrix[:2, :2] = np.array([[np.cos(angle), -np.sin(angle)], [np.sin(angle), np.cos(angle)]]) / voxel_size
    cells = np.floor(np.concatenate([points, np.ones((len(points), 1))], 1) @ matrix.T[:, :3])
    cells = (cells - cells.min(0)).astype(np.uint64)
    key = np.full(len(cells), 14695981039346656037, np.uint64)
    for axis in range(3):
        key = (key * np.uint64(1099511628211)) ^ cells[:, axis]
    _, first, inverse = np.unique(key, return_index=True, return_inverse=True)
    return cells[first].astype(np.int32), first, inverse


def _ours(
    root: Path, benchmark: Benchmark, layout: str, cache: Path | None, repeats: int
) -> Callable[[], tuple[int, int]]:
    # A data set has more scenes than are held in memory: none is held here.
    spec = replace(LAYOUTS[layout], reader=partial(LAYOUTS[layout].reader, keep_points=0))
    reader = spec.open(root, "train", benchmark, cache=cache)
    settings = ViewSettings((512, 512), 0.02, 10, 0.25, augmentation=Augmentation(), cache=cache)
    views = TrainingViews(reader, benchmark, settings, views_per_scene=repeats + 1)
    index = iter(range(repeats + 1))

    def run() -> tuple[int, int]:
        sample = views[next(index)]
        return len(sample.points), len(sample.voxel_coords)

    return run


def cases(request: Request) -> list[Case]:
    """List the variants for either list of classes; `xmask3d-kept` has scenes and visibility on disk from before."""
    found = []
    for points in request.points:
        for layout in NAMES:
            for contender in ("xmask3d", "xmask3d-kept", *request.against):
                name = f"sample, {layout}, {points // 1000}k points"
                options: dict[str, str | int | float] = {"layout": layout, "points": points}
                found.append(Case("sample", name, contender, options, "cpu", request.threads, request.repeats))
    return found


def prepare(case: Case) -> Job:
    """Prepare one variant, to be timed by the worker."""
    folder, layout = tempfile.TemporaryDirectory(), str(case.options["layout"])
    root, benchmark = Path(folder.name), load_benchmark(NAMES[layout])
    write_scene(root, int(case.options["points"]))
    if case.contender == "plain":
        generator = np.random.default_rng(0)
        return Job(lambda: (plain_sample(root, benchmark, layout, generator), folder))
    cache = root / "cache" if case.contender == "xmask3d-kept" else None
    run = _ours(root, benchmark, layout, cache, case.repeats)
    return Job(lambda: (run(), folder))  # the folder lives as long as the job
