"""What a training sample costs, beside the steps of the published pipeline in plain NumPy."""

import argparse
import json
import statistics
import tempfile
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np
import torch
from PIL import Image

from xmask3d.benchmark import Benchmark, load_benchmark
from xmask3d.benchmarks.case import Case, Job, Request
from xmask3d.data.files import write_points
from xmask3d.data.samples import TrainingViews
from xmask3d.data.scannet import open_reader
from xmask3d.errors import UserError, run_tool
from xmask3d.geometry.camera import PUBLISHED_INTRINSICS

ROOM = np.array([7.0, 5.5, 2.6])
SCENE, VIEW = "scene0000_00", "0"
NAMES = {"scannet": "scannet20/B15N4", "scannet200": "scannet200/B170N30"}


@dataclass(frozen=True)
class Measurement:
    """Cost of one sample.

    Attributes:
        variant: "plain" is plain NumPy, "ours" this package without anything kept on disk, "kept" with scenes and
            visibility kept.
        seconds, cpu_seconds: medians of the repeats.
        fastest: seconds of the fastest repeat.
        points, voxels: visible points, and voxels they fall in.
    """

    variant: str
    seconds: float
    cpu_seconds: float
    fastest: float
    points: int
    voxels: int


def write_scene(root: Path, count: int = 150_000, seed: int = 0) -> None:
    """Write one empty room of `count` points with one view in the layout of processed ScanNet."""
    rng = np.random.default_rng(seed)
    points = rng.uniform(0, 1, (count, 3)) * ROOM
    areas = np.array([ROOM[1] * ROOM[2], ROOM[0] * ROOM[2], ROOM[0] * ROOM[1]])
    axis = rng.choice(3, count, p=areas / areas.sum())
    side = rng.integers(0, 2, count)
    points[np.arange(count), axis] = side * ROOM[axis]
    labels = rng.integers(0, 20, count)
    path = root / "scannet_3d" / "train" / f"{SCENE}_vh_clean_2.pth"
    write_points(path, points, rng.uniform(-1, 1, (count, 3)), labels)
    raw = root / "scannet_3d_200" / "train" / f"{SCENE}.txt"
    raw.parent.mkdir(parents=True)
    raw.write_text("\n".join(map(str, labels + 1)) + "\n")
    folder = root / "scannet_2d" / SCENE
    for part in ("color", "depth", "pose", "label", "label_200"):
        (folder / part).mkdir(parents=True)
    pose = np.eye(4)
    pose[:3, :3] = [[0.0, -0.3, 0.954], [-1.0, 0.0, 0.0], [0.0, -0.954, -0.3]]
    pose[:3, 3] = [1.2, 2.6, 1.6]
    picture = rng.integers(0, 256, (30, 40, 3), dtype=np.uint8).repeat(8, 0).repeat(8, 1)
    Image.fromarray(picture).save(folder / "color" / f"{VIEW}.jpg")
    Image.fromarray(_depth(pose)).save(folder / "depth" / f"{VIEW}.png")
    ids = (picture[..., 0] % 41).astype(np.uint8)
    Image.fromarray(ids).save(folder / "label" / f"{VIEW}.png")
    Image.fromarray(ids.astype(np.uint16)).save(folder / "label_200" / f"{VIEW}.png")
    np.savetxt(folder / "pose" / f"{VIEW}.txt", pose)


def _depth(pose: np.ndarray) -> np.ndarray:
    """Distance to the walls, 240 x 320 uint16 millimetres."""
    rows, columns = np.mgrid[:240, :320]
    camera = PUBLISHED_INTRINSICS
    rays = np.stack([(columns - camera.cx) / camera.fx, (rows - camera.cy) / camera.fy, np.ones((240, 320))], -1)
    rays = rays @ pose[:3, :3].T + 1e-9
    exits = np.maximum(-pose[:3, 3] / rays, (ROOM - pose[:3, 3]) / rays).min(-1)
    return np.round(exits * 1000).astype(np.uint16)


def plain_sample(root: Path, benchmark: Benchmark, layout: str, generator: np.random.Generator) -> tuple[int, int]:
    """The steps of a sample one after the other: everything read and computed anew, ids mapped by Python calls.

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
    rows, _, visible = _plain_projection(points, pose, depth)
    points, colors, labels, binary = points[visible], colors[visible], labels[visible], binary[visible]
    class_of_pixel = {benchmark.file_ids_2d[c]: rank for rank, c in enumerate(benchmark.base)}
    name = "label" if layout == "scannet" else "label_200"
    ids = np.asarray(Image.open(folder / name / f"{VIEW}.png"))
    mapped = np.vectorize(lambda label: class_of_pixel.get(int(label), benchmark.num_base))(ids)
    _nearest(torch.from_numpy(mapped))
    planes = torch.from_numpy(np.array(image, np.float32)).permute(2, 0, 1)[None]
    torch.nn.functional.interpolate(planes, (512, 512), mode="bilinear")
    first, inverse = _plain_voxels(points, generator)
    for array in (colors[first] / 127.5 - 1, inverse, labels.astype(np.int64), binary):
        torch.from_numpy(array)
    return len(rows), len(first)


def _plain_labels(labels: np.ndarray, benchmark: Benchmark) -> tuple[np.ndarray, np.ndarray]:
    """Training labels and binary labels of all points of the scene, class by class."""
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


def _nearest(labels: torch.Tensor) -> torch.Tensor:
    return torch.nn.functional.interpolate(labels[None, None].float(), (512, 512), mode="nearest")[0, 0].long()


def _plain_projection(
    points: np.ndarray, pose: np.ndarray, depth: np.ndarray
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
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


def _plain_voxels(points: np.ndarray, generator: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
    angle = generator.uniform(-np.pi, np.pi)
    matrix = np.eye(4) * 50
    matrix[:2, :2] = 50 * np.array([[np.cos(angle), -np.sin(angle)], [np.sin(angle), np.cos(angle)]])
    cells = np.floor(np.concatenate([points, np.ones((len(points), 1))], 1) @ matrix.T[:, :3])
    cells = (cells - cells.min(0)).astype(np.uint64)
    key = np.full(len(cells), 14695981039346656037, np.uint64)
    for axis in range(3):
        key = (key * np.uint64(1099511628211)) ^ cells[:, axis]
    _, first, inverse = np.unique(key, return_index=True, return_inverse=True)
    return first, inverse


def compare(count: int = 150_000, repeats: int = 15, layout: str = "scannet", threads: int = 1) -> list[Measurement]:
    """Time the variants in turn, so that other programs disturb all alike.

    Args:
        count: points of the scene.
        repeats: samples of each.
        layout: "scannet", or "scannet200" with its ids per vertex.
        threads: of torch.
    """
    torch.set_num_threads(threads)
    benchmark = load_benchmark(NAMES[layout])
    with tempfile.TemporaryDirectory() as folder:
        root = Path(folder)
        write_scene(root, count)
        generator = np.random.default_rng(0)
        runs: dict[str, Callable[[], tuple[int, int]]] = {
            "plain": lambda: plain_sample(root, benchmark, layout, generator),
            "ours": _ours(root, benchmark, layout, None, repeats),
            "kept": _ours(root, benchmark, layout, root / "cache", repeats),
        }
        sizes = {name: run() for name, run in runs.items()}
        if len({points for points, _ in sizes.values()}) > 1:
            raise UserError(f"the variants see different points: {sizes}")
        times: dict[str, list[tuple[float, float]]] = {name: [] for name in runs}
        for _ in range(repeats):
            for name, run in runs.items():
                wall, cpu = time.perf_counter(), time.process_time()
                run()
                times[name].append((time.perf_counter() - wall, time.process_time() - cpu))
    return [
        Measurement(
            name,
            statistics.median(wall for wall, _ in spent),
            statistics.median(cpu for _, cpu in spent),
            min(wall for wall, _ in spent),
            *sizes[name],
        )
        for name, spent in times.items()
    ]


def _ours(
    root: Path, benchmark: Benchmark, layout: str, cache: Path | None, repeats: int
) -> Callable[[], tuple[int, int]]:
    # A data set has more scenes than are held in memory: none is held here.
    reader = open_reader(layout, root, "train", benchmark, cache=cache, keep_points=0)  # type: ignore[arg-type]
    views = TrainingViews(reader, benchmark, max_points=10**9, views_per_scene=repeats + 1, cache=cache)
    index = iter(range(repeats + 1))

    def run() -> tuple[int, int]:
        sample = views[next(index)]
        return len(sample.points), len(sample.voxel_coords)

    return run


def cases(request: Request) -> list[Case]:
    """The variants for either list of classes; "plain" only where it is asked for."""
    contenders = ["xmask3d", "xmask3d-kept"] + [name for name in request.against if name == "plain"]
    return [
        Case("sample", f"sample {layout}", contender, {"layout": layout}, "cpu", request.threads, request.repeats)
        for layout in NAMES
        for contender in contenders
    ]


def prepare(case: Case) -> Job:
    """One variant, ready to be timed by the worker."""
    folder, layout = tempfile.TemporaryDirectory(), str(case.options["layout"])
    root, benchmark = Path(folder.name), load_benchmark(NAMES[layout])
    write_scene(root)
    if case.contender == "plain":
        generator = np.random.default_rng(0)
        return Job(lambda: (plain_sample(root, benchmark, layout, generator), folder))
    cache = root / "cache" if case.contender == "xmask3d-kept" else None
    run = _ours(root, benchmark, layout, cache, case.repeats)
    return Job(lambda: (run(), folder))  # the folder lives as long as the job


def table(measurements: list[Measurement]) -> str:
    """The measurements as a Markdown table."""
    plain = measurements[0]
    lines = ["| variant | ms (CPU ms, fastest) | times faster | points | voxels |", "| --- | --- | --- | --- | --- |"]
    lines += [
        f"| {m.variant} | {m.seconds * 1e3:.0f} ({m.cpu_seconds * 1e3:.0f}, {m.fastest * 1e3:.0f}) "
        f"| {plain.seconds / m.seconds:.1f} | {m.points} | {m.voxels} |"
        for m in measurements
    ]
    return "\n".join(lines)


def main() -> None:
    """`python -m xmask3d.benchmarks.sample`: print the table, or JSON."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--points", type=int, default=150_000, help="points of the scene (default %(default)s)")
    parser.add_argument("--repeats", type=int, default=15, help="samples of each variant (default %(default)s)")
    parser.add_argument("--layout", choices=list(NAMES), default="scannet", help="default %(default)s")
    parser.add_argument("--threads", type=int, default=1, help="threads of torch (default %(default)s)")
    parser.add_argument("--json", action="store_true", help="print JSON instead of a table")
    args = parser.parse_args()
    results = compare(args.points, args.repeats, args.layout, args.threads)
    print(json.dumps([asdict(result) for result in results], indent=1) if args.json else table(results))


if __name__ == "__main__":
    run_tool(main)
