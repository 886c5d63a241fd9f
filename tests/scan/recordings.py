"""Recordings of the box room in the forms that scanners and data sets write."""

import io
import struct
import zlib
from pathlib import Path

import numpy as np
from PIL import Image

from tests.helpers.scenes import BoxRoom
from xmask3d.geometry.camera import Intrinsics

KINECT = Intrinsics(525.0, 525.0, 319.5, 239.5)  # at 640 x 480
Y_UP = np.array([[1.0, 0, 0, 0], [0, 0, 1, 0], [0, -1, 0, 0], [0, 0, 0, 1]])  # z up -> y up


def walk(room: BoxRoom, count: int = 12) -> list[np.ndarray]:
    """Camera-to-world poses of a walk around the room, with small tilts, so that the motion is not a pure turn."""
    rng = np.random.default_rng(1)
    poses = []
    for i in range(count):
        pose = room.pose(2 * np.pi * i / count * 0.9 + 0.2)
        pose[:3, 3] += 0.25 * np.sin(3 * i + np.arange(3)) + rng.uniform(-0.05, 0.05, 3)
        tilt = 0.15 * np.sin(i)
        pose[:3, :3] = pose[:3, :3] @ np.array(
            [[np.cos(tilt), -np.sin(tilt), 0], [np.sin(tilt), np.cos(tilt), 0], [0, 0, 1]]
        )
        poses.append(pose)
    return poses


_SHOTS: dict[tuple, tuple[np.ndarray, np.ndarray]] = {}  # rendering is the slow part of these tests


def shoot(
    room: BoxRoom, pose: np.ndarray, color_size: tuple[int, int], depth_size: tuple[int, int], noise: float = 0.0
) -> tuple[np.ndarray, np.ndarray]:
    """Colour picture and depth in metres; `noise` grows with the square of the distance as a Kinect's, with holes."""
    color, depth = _render(room, pose, color_size)[0], _render(room, pose, depth_size)[1]
    rng = np.random.default_rng(int(1000 * abs(pose[0, 3])))
    color = np.clip(color + rng.normal(0, 4, color.shape), 0, 255).astype(np.uint8)
    if noise:
        depth = depth + rng.normal(0, noise, depth.shape) * depth**2
        depth[rng.random(depth.shape) < 0.05] = 0
        depth[:, :6] = 0
    return color, depth


def _render(room: BoxRoom, pose: np.ndarray, size: tuple[int, int]) -> tuple[np.ndarray, np.ndarray]:
    key = (room.points.tobytes()[:256], pose.tobytes(), size)
    if key not in _SHOTS:
        _SHOTS[key] = room.render(pose, KINECT.scaled((480, 640), size), size)[:2]
    return _SHOTS[key]


def write_frames(
    folder: Path,
    room: BoxRoom,
    count: int = 8,
    *,
    color: str = "frame-{:06d}.color.jpg",
    depth: str = "frame-{:06d}.depth.png",
    pose: str | None = "frame-{:06d}.pose.txt",
    intrinsics: str | None = "camera-intrinsics.txt",
    matrix: Intrinsics | None = None,
    color_size: tuple[int, int] = (240, 320),
    depth_size: tuple[int, int] = (240, 320),
    unit: float = 1000.0,
    invalid: int = 65535,
    noise: float = 0.0012,
    inverse: bool = False,
    y_up_camera: bool = False,
    world: np.ndarray | None = None,
) -> list[np.ndarray]:
    """Write a plain folder of frames; returns the camera-to-world poses in the written world (y down, z forward)."""
    poses = []
    for i, truth in enumerate(walk(room)[:count]):
        picture, metres = shoot(room, truth, color_size, depth_size, noise)
        for name in (color, depth, pose or ""):
            (folder / name.format(i)).parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(picture).save(folder / color.format(i))
        written = np.where(metres > 0, np.round(metres * unit), invalid)
        if depth.endswith(".npy"):
            np.save(folder / depth.format(i), metres.astype(np.float32))
        else:
            Image.fromarray(written.astype(np.uint16)).save(folder / depth.format(i))
        placed = (np.eye(4) if world is None else world) @ truth
        poses.append(placed)
        stored = placed @ np.diag([1.0, -1, -1, 1]) if y_up_camera else placed
        if pose:
            np.savetxt(folder / pose.format(i), np.linalg.inv(stored) if inverse else stored)
    if intrinsics:
        k = matrix or KINECT.scaled((480, 640), color_size)
        np.savetxt(folder / intrinsics, [[k.fx, 0, k.cx], [0, k.fy, k.cy], [0, 0, 1]])
    return poses


def write_sens(path: Path, room: BoxRoom, count: int = 6, size: tuple[int, int] = (240, 320)) -> None:
    """Write a .sens file of version 4: JPEG colour, zlib depth."""
    k = KINECT.scaled((480, 640), size)
    matrix = np.eye(4)
    matrix[:2, :3] = [[k.fx, 0, k.cx], [0, k.fy, k.cy]]
    with path.open("wb") as stream:
        stream.write(struct.pack("<IQ", 4, 6) + b"sensor")
        for values in (matrix, np.eye(4), matrix, np.eye(4)):
            stream.write(values.astype("<f4").tobytes())
        stream.write(struct.pack("<iiIIIIfQ", 2, 1, size[1], size[0], size[1], size[0], 1000.0, count))
        for pose in walk(room)[:count]:
            color, depth = shoot(room, pose, size, size, 0.001)
            picture = io.BytesIO()
            Image.fromarray(color).save(picture, "JPEG", quality=92)
            packed = zlib.compress((depth * 1000).astype("<u2").tobytes())
            stream.write(pose.astype("<f4").tobytes() + struct.pack("<QQQQ", 0, 0, picture.tell(), len(packed)))
            stream.write(picture.getvalue() + packed)
