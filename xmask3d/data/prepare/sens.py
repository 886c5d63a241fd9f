"""Reader of ScanNet's `.sens` recordings (version 4 of the published format): poses, JPEG colour, zlib depth."""

import io
import math
import struct
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

import numpy as np

from xmask3d.errors import UserError
from xmask3d.guarded import MAX_PIXELS, inflate, open_picture, refuse_devices, rgb_of

VERSION = 4
COLOR_CODECS = {0: "raw", 1: "png", 2: "jpeg"}
DEPTH_CODECS = {0: "raw", 1: "zlib", 2: "occi"}
LIMIT = 1 << 28  # largest size of a frame's picture; beyond it the file is damaged


@dataclass(frozen=True)
class Header:
    """Cameras of a recording; sizes are (height, width), matrices 4 x 4."""

    sensor: str
    color_intrinsics: np.ndarray
    depth_intrinsics: np.ndarray
    color_codec: str
    depth_codec: str
    color_size: tuple[int, int]
    depth_size: tuple[int, int]
    depth_unit: float
    num_frames: int


@dataclass(frozen=True)
class Frame:
    """Frame: its number, camera-to-world pose (4 x 4, may have infinities), and encoded colour and depth."""

    number: int
    pose: np.ndarray
    color: bytes
    depth: bytes


@dataclass(frozen=True)
class FramePlace:
    """Pose of a frame (4 x 4) and position of its encoded pictures: colour at `start`, depth right after it."""

    number: int
    pose: np.ndarray
    start: int
    color_bytes: int
    depth_bytes: int


class SensFile:
    """Recording opened for reading.

    Args:
        path: the `.sens` file.

    Raises:
        UserError: the file is missing, damaged, of another version, or has codecs that this reader does not know.
    """

    def __init__(self, path: Path) -> None:
        self.path = Path(path)
        refuse_devices(self.path)
        try:
            self._stream: BinaryIO = open(self.path, "rb")  # noqa: SIM115 (closed by __exit__)
        except OSError as error:
            raise UserError(f"{path}: cannot be read ({error.strerror})") from error
        try:
            self.header = self._read_header()
        except BaseException:
            self._stream.close()
            raise

    def __enter__(self) -> "SensFile":
        return self

    def __exit__(self, *_: object) -> None:
        self._stream.close()

    def frames(self, step: int = 1) -> Iterator[Frame]:
        """Yield every `step`-th frame in order, without reading the others."""
        for number in range(self.header.num_frames):
            pose = np.array(self._unpack("16f"), np.float64).reshape(4, 4)
            _, _, color_bytes, depth_bytes = self._unpack("4Q")
            if max(color_bytes, depth_bytes) > LIMIT:
                raise UserError(f"{self.path}: damaged at frame {number}")
            if number % step:
                self._stream.seek(color_bytes + depth_bytes, io.SEEK_CUR)
            else:
                yield Frame(number, pose, self._take(color_bytes), self._take(depth_bytes))

    def index(self) -> list[FramePlace]:
        """List the positions of all complete frames, for reading in any order; fewer than stated if truncated."""
        places: list[FramePlace] = []
        size = self.path.stat().st_size
        for number in range(self.header.num_frames):
            if self._stream.tell() + 96 > size:
                break
            pose = np.array(self._unpack("16f"), np.float64).reshape(4, 4)
            _, _, color_bytes, depth_bytes = self._unpack("4Q")
            start = self._stream.tell()
            if max(color_bytes, depth_bytes) > LIMIT or start + color_bytes + depth_bytes > size:
                break
            places.append(FramePlace(number, pose, start, color_bytes, depth_bytes))
            self._stream.seek(color_bytes + depth_bytes, io.SEEK_CUR)
        return places

    def frame_at(self, place: FramePlace) -> Frame:
        """Read one frame of `index`."""
        self._stream.seek(place.start)
        return Frame(place.number, place.pose, self._take(place.color_bytes), self._take(place.depth_bytes))

    def decode_color(self, frame: Frame) -> np.ndarray:
        """Decode colour to h x w x 3 uint8."""
        if self.header.color_codec == "raw":
            return self._reshape(frame, frame.color, np.uint8, (*self.header.color_size, 3))
        with open_picture(io.BytesIO(frame.color), f"{self.path}: the colour of frame {frame.number}") as picture:
            return rgb_of(picture)

    def decode_depth(self, frame: Frame) -> np.ndarray:
        """Decode depth to h x w uint16, in units of 1 / depth_unit metres."""
        data = frame.depth
        if self.header.depth_codec == "zlib":
            try:
                data = inflate(data, 2 * math.prod(self.header.depth_size))
            except ValueError as error:
                raise UserError(f"{self.path}: the depth of frame {frame.number} is damaged ({error})") from error
        return self._reshape(frame, data, np.uint16, self.header.depth_size)

    def _reshape(self, frame: Frame, data: bytes, dtype: type, shape: tuple[int, ...]) -> np.ndarray:
        if len(data) != math.prod(shape) * np.dtype(dtype).itemsize:
            raise UserError(f"{self.path}: frame {frame.number} has not the size that the file announces")
        return np.frombuffer(data, dtype).reshape(shape)

    def _read_header(self) -> Header:
        (version,) = self._unpack("I")
        if version != VERSION:
            raise UserError(f"{self.path}: not a recording of version {VERSION} (it says {version})")
        (length,) = self._unpack("Q")
        if length > 4096:
            raise UserError(f"{self.path}: damaged in its header")
        sensor = self._take(length).decode(errors="replace")
        color, _, depth, _ = (np.array(self._unpack("16f"), np.float64).reshape(4, 4) for _ in range(4))
        color_code, depth_code = self._unpack("2i")
        color_width, color_height, depth_width, depth_height = self._unpack("4I")
        (unit,) = self._unpack("f")
        (count,) = self._unpack("Q")
        color_codec, depth_codec = COLOR_CODECS.get(color_code), DEPTH_CODECS.get(depth_code)
        if color_codec is None or depth_codec not in ("raw", "zlib"):
            raise UserError(f"{self.path}: compressed in a way that cannot be read ({color_code}, {depth_code})")
        if not 0 < unit < math.inf:
            raise UserError(f"{self.path}: damaged in its header (depth unit {unit})")
        if max(color_width * color_height, depth_width * depth_height) > MAX_PIXELS:
            raise UserError(f"{self.path}: damaged in its header (pictures of {color_width} x {color_height} pixels)")
        return Header(
            sensor=sensor,
            color_intrinsics=color,
            depth_intrinsics=depth,
            color_codec=color_codec,
            depth_codec=depth_codec,
            color_size=(color_height, color_width),
            depth_size=(depth_height, depth_width),
            depth_unit=unit,
            num_frames=count,
        )

    def _unpack(self, form: str) -> tuple:
        return struct.unpack("<" + form, self._take(struct.calcsize("<" + form)))

    def _take(self, count: int) -> bytes:
        data = self._stream.read(count)
        if len(data) != count:
            raise UserError(f"{self.path}: ends early (truncated download?)")
        return data
