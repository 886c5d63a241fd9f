"""Write one room as processed ScanNet: a labelled point cloud, posed frames, label images and captions."""

import io
import json
import zlib
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image

from xmask3d.data.rooms import camera, captions, noise
from xmask3d.data.rooms.catalogue import NYU40_IDS
from xmask3d.data.rooms.render import Frame
from xmask3d.data.rooms.structure import UNLABELLED, BuiltRoom

POINT_SPACING = 0.035
"""Edge of the cells of which each holds one point, metres."""

FRAME_STEP = 20
"""ScanNet's processed frames are every 20th: stems 0, 20, 40, ..."""

_NYU40 = np.zeros(256, np.uint8)
_NYU40[:20] = NYU40_IDS


@dataclass(frozen=True)
class Cloud:
    """N scene points: coordinates in metres, colours in [-1, 1], labels 0..19 or 255. All float32."""

    coords: NDArray[np.float32]
    colors: NDArray[np.float32]
    labels: NDArray[np.float32]


@dataclass(frozen=True)
class RoomFiles:
    """What a written room holds: a sentence per frame stem, point count, and the frames in which each class appears."""

    captions: dict[str, str]
    points: int
    frames_per_class: dict[int, int]


def scene_files(out: Path, split: str, scene: str) -> tuple[Path, Path]:
    """The point cloud's path and the folder of frames."""
    return out / "scannet_3d" / split / f"{scene}_vh_clean_2.pth", out / "scannet_2d" / scene


def write_room(built: BuiltRoom, out: Path, split: str, scene: str, views: int, rng: np.random.Generator) -> RoomFiles:
    """Film a room and write its files; the point cloud last, so that its presence means a complete room.

    Args:
        views: number of frames.
    """
    cloud_path, folder = scene_files(out, split, scene)
    for name in ("color", "depth", "pose", "label"):
        (folder / name).mkdir(parents=True, exist_ok=True)
    poses = camera.choose_views(built, views, rng)
    frames = [built.renderer.render(pose, camera.INTRINSICS, camera.HEIGHT, camera.WIDTH) for pose in poses]
    exposure = _exposure(frames, rng)
    cloud = scan(built, frames, poses, exposure, rng)
    sentences: dict[str, str] = {}
    seen: dict[int, int] = {}
    for index, (frame, pose) in enumerate(zip(frames, poses, strict=True)):
        stem = str(index * FRAME_STEP)
        _write_frame(folder, stem, frame, pose, exposure, rng)
        sentences[stem] = caption(built, frame, rng)
        labels, counts = np.unique(frame.label, return_counts=True)
        for label in labels[counts >= 100]:
            seen[int(label)] = seen.get(int(label), 0) + 1
    _write(folder / "intrinsics.txt", matrix_text(camera.INTRINSICS).encode())
    buffer = io.BytesIO()
    torch.save((cloud.coords, cloud.colors, cloud.labels), buffer)
    _write(cloud_path, buffer.getvalue())
    return RoomFiles(sentences, len(cloud.coords), seen)


def caption(built: BuiltRoom, frame: Frame, rng: np.random.Generator) -> str:
    """A sentence about what a frame shows."""
    count = np.bincount(frame.instance[frame.instance >= 0], minlength=len(built.kinds))
    visible = np.flatnonzero(count)
    return captions.describe(
        [built.kinds[i] for i in visible], list(count[visible] / frame.instance.size), built.room.kind, rng
    )


def scan(
    built: BuiltRoom, frames: list[Frame], poses: list[camera.Pose], exposure: float, rng: np.random.Generator
) -> Cloud:
    """Fuse frames to a cloud with one point per cell, as a scanner does: only surfaces that some camera saw.

    Smaller views from further cameras join in, since a scan's frames are more than those that are kept.
    """
    # Every second pixel lies closer than the cells at any distance in a room.
    parts = [_lift(_thinned(frame), pose, 2) for frame, pose in zip(frames, poses, strict=True)]
    for pose in camera.choose_views(built, max(2, len(poses) // 3), rng, candidates_per_view=2):
        parts.append(_lift(camera.small_view(built, pose, 2), pose, 2))
    points, colors, instances, labels = (np.concatenate(column) for column in zip(*parts, strict=True))
    cell = np.floor(points / POINT_SPACING).astype(np.int64)
    cell -= cell.min(0)
    extent = cell.max(0) + 1
    key = (cell[:, 0] * extent[1] + cell[:, 1]) * extent[2] + cell[:, 2]
    # Within a cell only the instance with most pixels counts, or edges would be blurred.
    pair, inverse, count = np.unique(key * (instances.max() + 1) + instances, return_inverse=True, return_counts=True)
    mean = np.stack([np.bincount(inverse, weights) / count for weights in (*points.T, *colors.T)], -1)
    label = np.zeros(len(pair), np.int64)
    label[inverse] = labels
    owner = pair // (instances.max() + 1)
    order = np.lexsort((-count, owner))
    keep = order[np.concatenate([[True], np.diff(owner[order]) > 0])]
    coords = mean[keep, :3] + rng.normal(0, 0.002, (len(keep), 3))
    shade = np.clip(mean[keep, 3:] * exposure + rng.normal(0, 0.012, (len(keep), 3)), 0, 1)
    return Cloud(coords.astype(np.float32), (shade * 2 - 1).astype(np.float32), label[keep].astype(np.float32))


def _exposure(frames: list[Frame], rng: np.random.Generator) -> float:
    """A camera's automatic exposure, not always right: the factor that brings the mean to a usual brightness."""
    mean = float(np.mean([frame.color.mean() for frame in frames])) / 255
    return float(np.clip(rng.uniform(0.42, 0.56) / max(mean, 1e-3), 0.7, 1.8))


def _thinned(frame: Frame) -> Frame:
    """Every second row and column."""
    return Frame(frame.color[::2, ::2], frame.depth[::2, ::2], frame.instance[::2, ::2], frame.label[::2, ::2])


def matrix_text(matrix: NDArray[np.float64]) -> str:
    """A matrix as ScanNet writes it: a row a line."""
    return "\n".join(" ".join(f"{value:.6f}" for value in row) for row in matrix) + "\n"


def _lift(frame: Frame, pose: camera.Pose, factor: int) -> tuple[NDArray, NDArray, NDArray, NDArray]:
    """World points (N x 3), colours in [0, 1], instances and labels of the pixels that hit something."""
    rows, columns = np.nonzero(frame.instance >= 0)
    depth = frame.depth[rows, columns].astype(np.float64)
    k = camera.INTRINSICS
    x, y = columns * factor, rows * factor
    local = np.stack([(x - k[0, 2]) / k[0, 0] * depth, (y - k[1, 2]) / k[1, 1] * depth, depth], -1)
    points = local @ pose[:3, :3].T + pose[:3, 3]
    return (
        points,
        frame.color[rows, columns] / 255.0,
        frame.instance[rows, columns].astype(np.int64),
        frame.label[rows, columns],
    )


def _write_frame(
    folder: Path, stem: str, frame: Frame, pose: camera.Pose, exposure: float, rng: np.random.Generator
) -> None:
    color = noise.sensor_color(frame.color, exposure, rng)
    _write(folder / "color" / f"{stem}.jpg", _encode(color, "JPEG", quality=92))
    # Looking for repetitions beyond runs costs time, and finds none in noise.
    runs = {"compress_type": zlib.Z_RLE}
    _write(folder / "depth" / f"{stem}.png", _encode(noise.sensor_depth(frame.depth, rng), "PNG", **runs))
    _write(folder / "label" / f"{stem}.png", _encode(_NYU40[np.minimum(frame.label, UNLABELLED)], "PNG", **runs))
    _write(folder / "pose" / f"{stem}.txt", matrix_text(pose).encode())


def _encode(array: NDArray, kind: str, **options: int) -> bytes:
    buffer = io.BytesIO()
    Image.fromarray(array).save(buffer, kind, **options)
    return buffer.getvalue()


def _write(path: Path, content: bytes) -> None:
    """Write a file at once or not at all."""
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(path.name + ".part")
    temporary.write_bytes(content)
    temporary.replace(path)


def write_json(path: Path, content: object) -> None:
    """Write JSON at once or not at all."""
    _write(path, (json.dumps(content, indent=1, sort_keys=True) + "\n").encode())
