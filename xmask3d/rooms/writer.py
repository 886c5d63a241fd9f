"""Writer of a room in the layout of processed ScanNet: labelled point cloud, posed frames, label images, captions."""

import io
import json
import struct
import zlib
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image

from xmask3d.data.prepare.labels import NYU20
from xmask3d.files import atomic_write
from xmask3d.rooms import noise, sentences, viewpoints
from xmask3d.rooms.point_fusion import Picture, fuse
from xmask3d.rooms.render import Frame
from xmask3d.rooms.structure import UNLABELLED, BuiltRoom

POINT_SPACING = 0.035
"""Edge of the cells in metres; each cell has one point."""

FRAME_STEP = 20
"""ScanNet's processed frames are every 20th: stems 0, 20, 40, ..."""

_NYU40 = np.zeros(256, np.uint8)
_NYU40[:20] = NYU20


OBJECTS_PER_CLASS = 1000
"""A point's object id is its NYU40 class id times this factor, plus the number of the object in its room, from 1."""


@dataclass(frozen=True)
class Cloud:
    """N scene points.

    Attributes:
        coords: metres. colors: in [-1, 1]. Both N x 3 float32.
        labels: N float32, classes 0..19, or 255.
        instances: N integers, numbers of the objects from 0.
    """

    coords: NDArray[np.float32]
    colors: NDArray[np.float32]
    labels: NDArray[np.float32]
    instances: NDArray[np.integer]

    @property
    def object_ids(self) -> NDArray[np.int64]:
        """N ids as in ScanNet's instance files; 0 where nothing is annotated."""
        classes = _NYU40[self.labels.astype(np.uint8)].astype(np.int64)
        return np.where(classes > 0, classes * OBJECTS_PER_CLASS + self.instances + 1, 0)


@dataclass(frozen=True)
class RoomFiles:
    """Content of a written room: a sentence per frame stem, point count, and the frames in which each class appears."""

    captions: dict[str, str]
    points: int
    frames_per_class: dict[int, int]


def scene_files(out: Path, split: str, scene: str) -> tuple[Path, Path]:
    """Return the point cloud's path and the folder of frames."""
    return out / "scannet_3d" / split / f"{scene}_vh_clean_2.pth", out / "scannet_2d" / scene


def objects_file(out: Path, split: str, scene: str) -> Path:
    """Return the path of the file that holds the object of every point."""
    return out / "instance_gt" / split / f"{scene}.txt"


class SceneWriter:
    """Writer of the files of a scene; the point cloud comes last, so that its presence marks a complete room.

    Earlier content of the scene is removed, since frames of another room would count as views of this one.
    """

    def __init__(self, out: Path, split: str, scene: str) -> None:
        self.cloud_path, self.folder = scene_files(out, split, scene)
        self.objects_path = objects_file(out, split, scene)
        self.seen: dict[int, int] = {}
        self.cloud_path.unlink(missing_ok=True)
        for name in ("color", "depth", "pose", "label"):
            (self.folder / name).mkdir(parents=True, exist_ok=True)
            for old in (self.folder / name).iterdir():
                old.unlink()
        self.objects_path.parent.mkdir(parents=True, exist_ok=True)

    def add_frame(
        self, stem: str, jpeg: bytes, depth: NDArray[np.uint16], label: NDArray[np.int32], pose: viewpoints.Pose
    ) -> None:
        """Write one frame. Args: depth: H x W millimetres; label: H x W class ids; pose: camera to world."""
        atomic_write(self.folder / "color" / f"{stem}.jpg", jpeg, sync=False)
        atomic_write(self.folder / "depth" / f"{stem}.png", encode_png(depth), sync=False)
        picture = _NYU40[np.minimum(label, UNLABELLED)]
        atomic_write(self.folder / "label" / f"{stem}.png", encode_png(picture), sync=False)
        atomic_write(self.folder / "pose" / f"{stem}.txt", matrix_text(pose), sync=False)
        for found in np.flatnonzero(np.bincount(label.ravel()) >= 100):
            self.seen[int(found)] = self.seen.get(int(found), 0) + 1

    def finish(self, cloud: Cloud, captions: dict[str, str]) -> RoomFiles:
        """Write the calibration, the objects and the cloud."""
        atomic_write(self.folder / "intrinsics.txt", matrix_text(viewpoints.INTRINSICS), sync=False)
        atomic_write(self.objects_path, "".join(f"{number}\n" for number in cloud.object_ids.tolist()), sync=False)
        buffer = io.BytesIO()
        torch.save((cloud.coords, cloud.colors, cloud.labels), buffer)
        atomic_write(self.cloud_path, buffer.getvalue(), sync=False)
        return RoomFiles(captions, len(cloud.coords), self.seen)


def write_room(built: BuiltRoom, out: Path, split: str, scene: str, views: int, rng: np.random.Generator) -> RoomFiles:
    """Render a room and write its files. Args: views: number of frames."""
    writer = SceneWriter(out, split, scene)
    poses = viewpoints.choose_views(built, views, rng)
    frames = [built.renderer.render(pose, viewpoints.INTRINSICS, viewpoints.HEIGHT, viewpoints.WIDTH) for pose in poses]
    exposure = _exposure(frames, rng)
    cloud = scan(built, frames, poses, exposure, rng)
    captions: dict[str, str] = {}
    for index, (frame, pose) in enumerate(zip(frames, poses, strict=True)):
        stem = str(index * FRAME_STEP)
        color = io.BytesIO()
        Image.fromarray(noise.sensor_color(frame.color, exposure, rng)).save(color, "JPEG", quality=92)
        writer.add_frame(stem, color.getvalue(), noise.sensor_depth(frame.depth, rng), frame.label, pose)
        captions[stem] = caption(built, frame.instance, rng)
    return writer.finish(cloud, captions)


def caption(built: BuiltRoom, instance: NDArray[np.int32], rng: np.random.Generator) -> str:
    """Compose a sentence about what a frame shows. Args: instance: H x W, -1 where nothing is hit."""
    count = np.bincount(instance[instance >= 0], minlength=len(built.kinds))
    visible = np.flatnonzero(count)
    return sentences.describe(
        [built.kinds[i] for i in visible], list(count[visible] / instance.size), built.room.kind, rng
    )


def scan(
    built: BuiltRoom, frames: list[Frame], poses: list[viewpoints.Pose], exposure: float, rng: np.random.Generator
) -> Cloud:
    """Fuse frames to a cloud with one point per cell, as a scanner does, from surfaces seen by some camera.

    Smaller views from additional cameras are included, since a scan has more frames than those that are kept.
    """
    # Every second pixel is dense enough for the cells at any distance in a room.
    pictures = [Picture(frame, pose, 2) for frame, pose in zip(frames, poses, strict=True)]
    for pose in viewpoints.choose_views(built, max(2, len(poses) // 3), rng, candidates_per_view=2):
        pictures.append(Picture(viewpoints.small_view(built, pose, 2), pose, 1))
    coords, colors, labels, instances = fuse(pictures, viewpoints.INTRINSICS, 2, POINT_SPACING)
    coords = coords + rng.normal(0, 0.002, coords.shape)
    shade = np.clip(colors * exposure + rng.normal(0, 0.012, colors.shape), 0, 1)
    return Cloud(coords.astype(np.float32), (shade * 2 - 1).astype(np.float32), labels.astype(np.float32), instances)


def _exposure(frames: list[Frame], rng: np.random.Generator) -> float:
    """Draw a camera's automatic exposure, with an error: the factor that gives the mean a typical brightness."""
    mean = float(np.mean([frame.color.mean() for frame in frames])) / 255
    return float(np.clip(rng.uniform(0.42, 0.56) / max(mean, 1e-3), 0.7, 1.8))


def matrix_text(matrix: NDArray[np.float64]) -> str:
    """Format a matrix as ScanNet writes it: one line per row."""
    return "\n".join(" ".join(f"{value:.6f}" for value in row) for row in matrix) + "\n"


def encode_png(image: NDArray) -> bytes:
    """Encode a grey PNG file in half of Pillow's time. Args: image: H x W uint8 or uint16.

    Raises:
        ValueError: the shape or type is wrong.
    """
    if image.ndim != 2 or image.dtype not in (np.uint8, np.uint16):
        raise ValueError(f"an image {image.shape} of {image.dtype}: H x W of uint8 or uint16")
    pixels = np.ascontiguousarray(image.astype(image.dtype.newbyteorder(">"))).view(np.uint8)
    rows = np.empty((len(pixels), pixels.shape[1] + 1), np.uint8)
    rows[:, 0] = 2  # filter "up": the difference from the row above
    rows[:1, 1:] = pixels[:1]
    np.subtract(pixels[1:], pixels[:-1], out=rows[1:, 1:])
    # Searching for more than runs costs time, and finds no repetitions in noise.
    packer = zlib.compressobj(6, zlib.DEFLATED, 15, 9, zlib.Z_RLE)
    header = struct.pack(">IIBBBBB", image.shape[1], image.shape[0], 8 * image.itemsize, 0, 0, 0, 0)
    chunks = ((b"IHDR", header), (b"IDAT", packer.compress(rows.tobytes()) + packer.flush()), (b"IEND", b""))
    parts = (struct.pack(">I", len(x)) + kind + x + struct.pack(">I", zlib.crc32(kind + x)) for kind, x in chunks)
    return b"\x89PNG\r\n\x1a\n" + b"".join(parts)


def write_json(path: Path, content: object) -> None:
    """Write JSON completely or not at all."""
    atomic_write(path, json.dumps(content, indent=1, sort_keys=True) + "\n")
