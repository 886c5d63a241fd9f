"""ScanNet's .sens files: posed colour and depth frames in one file, read one at a time."""

import io
import struct
import zlib
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from PIL import Image

from xmask3d.errors import UserError
from xmask3d.scan.formats import NO_DEPTH
from xmask3d.scan.recording import Recording

COLOR_FORMS = {0: "raw", 1: "png", 2: "jpeg"}
DEPTH_FORMS = {0: "raw", 1: "zlib"}


@dataclass
class _Frame:
    """Where a frame's bytes lie."""

    pose: np.ndarray
    color_at: int
    color_bytes: int
    depth_bytes: int


def open_sens(path: Path) -> Recording:
    """Index a .sens file (version 4); pictures are decoded when asked for, so any length fits in memory.

    Raises:
        UserError: damaged, another version, or with no frame.
    """
    try:
        with path.open("rb") as stream:
            header = _read_header(stream, path)
            frames, complete = _index(stream, header["frames"], path.stat().st_size)
    except (OSError, ValueError, struct.error) as error:
        raise UserError(f"{path}: truncated or not a .sens file ({error})") from error
    if not frames:
        raise UserError(f"{path}: holds no complete frame")

    def load_color(index: int) -> np.ndarray:
        data = _read(path, frames[index].color_at, frames[index].color_bytes)
        try:
            if header["color_form"] == "raw":
                return np.frombuffer(data, np.uint8).reshape(*header["color_size"], 3)
            with Image.open(io.BytesIO(data)) as picture:
                return np.asarray(picture.convert("RGB"))
        except (OSError, ValueError, SyntaxError) as error:
            raise UserError(f"{path}: colour of frame {index} is damaged ({error})") from error

    def load_depth(index: int) -> np.ndarray:
        frame = frames[index]
        data = _read(path, frame.color_at + frame.color_bytes, frame.depth_bytes)
        try:
            data = zlib.decompress(data) if header["depth_form"] == "zlib" else data
            depth = np.frombuffer(data, np.uint16).reshape(header["depth_size"])
        except (zlib.error, ValueError) as error:
            raise UserError(f"{path}: depth of frame {index} is damaged ({error})") from error
        return np.where(depth == NO_DEPTH, 0, depth).astype(np.float32)

    recording = Recording(
        kind="raw ScanNet recording (.sens)",
        path=path,
        names=[str(i) for i in range(len(frames))],
        load_color=load_color,
        load_depth=load_depth,
        poses=np.stack([frame.pose for frame in frames]),
        color_size=header["color_size"],
        depth_size=header["depth_size"],
        color_matrices=[("the file's own", header["color_matrix"])],
        depth_matrices=[("the file's own", header["depth_matrix"])],
        units=(header["depth_shift"],),
    )
    if not complete:
        recording.notes.append(f"the file ends early: {len(frames)} of {header['frames']} frames are whole")
    meshes = sorted(path.parent.glob(f"{path.stem}_vh_clean_2.ply"))
    recording.cloud = meshes[0] if meshes else None
    return recording.without_lost_frames()


def _read(path: Path, start: int, count: int) -> bytes:
    with path.open("rb") as stream:
        stream.seek(start)
        return stream.read(count)


def _read_header(stream, path: Path) -> dict:
    (version,) = struct.unpack("<I", stream.read(4))
    if version != 4:
        raise UserError(f"{path}: .sens version {version}; only version 4 is known")
    (length,) = struct.unpack("<Q", stream.read(8))
    if length > 10_000:
        raise UserError(f"{path}: not a .sens file")
    stream.read(length)  # the sensor's name
    matrices = np.frombuffer(stream.read(4 * 64), "<f4").astype(float).reshape(4, 4, 4)
    color_form, depth_form, width, height, depth_width, depth_height = struct.unpack("<iiIIII", stream.read(24))
    (depth_shift,) = struct.unpack("<f", stream.read(4))
    (frames,) = struct.unpack("<Q", stream.read(8))
    if color_form not in COLOR_FORMS or depth_form not in DEPTH_FORMS:
        raise UserError(f"{path}: compression {color_form} / {depth_form} of colour / depth is not supported")
    return {
        "color_matrix": matrices[0, :3, :3],
        "depth_matrix": matrices[2, :3, :3],
        "color_form": COLOR_FORMS[color_form],
        "depth_form": DEPTH_FORMS[depth_form],
        "color_size": (height, width),
        "depth_size": (depth_height, depth_width),
        "depth_shift": float(depth_shift),
        "frames": frames,
    }


def _index(stream, count: int, size: int) -> tuple[list[_Frame], bool]:
    frames: list[_Frame] = []
    for _ in range(count):
        head = stream.read(96)
        if len(head) < 96:
            return frames, False
        pose = np.frombuffer(head[:64], "<f4").astype(float).reshape(4, 4)
        color_bytes, depth_bytes = struct.unpack("<QQ", head[80:96])
        place = stream.tell()
        if place + color_bytes + depth_bytes > size:
            return frames, False
        frames.append(_Frame(pose, place, color_bytes, depth_bytes))
        stream.seek(color_bytes + depth_bytes, 1)
    return frames, True
