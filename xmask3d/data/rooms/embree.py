"""Rays against triangles by Embree, in packets.

The package embreex brings Embree and offers one ray at a time, and copies triangles one number at a time. Embree's own
interface (version 4, https://github.com/RenderKit/embree, `RTCRayHit16` and so on) takes 16 rays of like direction at
once, in under half the time, and triangles where they lie. Where that library is not found, embreex's way serves.
"""

import ctypes
import functools
import logging
from collections.abc import Iterator
from ctypes import POINTER, Structure, c_char_p, c_float, c_int, c_size_t, c_uint, c_void_p
from pathlib import Path
from typing import Any

import embreex
import numpy as np
from embreex import rtcore_scene
from embreex.mesh_construction import TriangleMesh
from numpy.typing import NDArray

log = logging.getLogger(__name__)

PACKET = 16
_PACKETS = 1024  # at a time: what they take stays in a cache
_TRIANGLE, _INDEX, _VERTEX, _UINT3, _FLOAT3, _COHERENT = 0, 0, 1, 0x5003, 0x9003, 1 << 16
# Rows of 16 numbers of a packet: origin, nearest, direction, time, farthest, mask, number, flags, then of the hit its
# normal, u, v, triangle, geometry and instances.
_ORIGIN, _DIRECTION, _FAR, _MASK, _U, _V, _FACE, _ROWS = 0, 4, 8, 9, 15, 16, 17, 24


class _Context(Structure):
    _fields_ = (("instance", c_uint), ("primitive", c_uint))


class _Arguments(Structure):
    _fields_ = (
        ("flags", c_int), ("features", c_uint), ("context", POINTER(_Context)),
        ("filter", c_void_p), ("function", c_void_p), ("min_width", c_float),
    )  # fmt: skip


class Scene:
    """Triangles ready for rays.

    Args:
        vertices: V x 3 float32.
        faces: F x 3 int32, positions in `vertices`.
        packets: whether rays may go in packets.
    """

    def __init__(self, vertices: NDArray[np.float32], faces: NDArray[np.int32], *, packets: bool = True) -> None:
        self._vertices = np.zeros((len(vertices) + 2, 3), np.float32)  # Embree reads some bytes beyond the last
        self._vertices[:-2] = vertices
        self._faces = np.ascontiguousarray(faces, np.int32)
        self._library: Any = _library() if packets else None
        call = self._library
        if call is None:
            self._plain = rtcore_scene.EmbreeScene()
            TriangleMesh(self._plain, self._vertices[:-2], self._faces)
            return
        device = _device()
        self._scene = call.rtcNewScene(device)
        geometry = call.rtcNewGeometry(device, _TRIANGLE)
        for kind, layout, array, count in (
            (_VERTEX, _FLOAT3, self._vertices, len(vertices)),
            (_INDEX, _UINT3, self._faces, len(faces)),
        ):
            call.rtcSetSharedGeometryBuffer(geometry, kind, 0, layout, array.ctypes.data, 0, 12, count)
        call.rtcCommitGeometry(geometry)
        call.rtcAttachGeometry(self._scene, geometry)
        call.rtcReleaseGeometry(geometry)
        call.rtcCommitScene(self._scene)
        if call.rtcGetDeviceError(device):
            raise MemoryError(f"Embree takes no scene of {len(faces)} triangles")
        self._context = _Context(0xFFFFFFFF, 0xFFFFFFFF)
        self._arguments = _Arguments(_COHERENT, 0xFFFFFFFF, ctypes.pointer(self._context), None, None, 0.0)
        self._all = np.full(PACKET, -1, np.int32)
        room = np.zeros(_PACKETS * _ROWS * PACKET + PACKET, np.float32)
        first = -room.ctypes.data // room.itemsize % PACKET  # packets begin at multiples of 64 bytes
        self._packets = room[first : first + _PACKETS * _ROWS * PACKET].reshape(_PACKETS, _ROWS, PACKET)
        self._numbers = self._packets.view(np.int32)
        self._numbers[:, _MASK] = -1

    def __del__(self) -> None:
        if getattr(self, "_library", None) is not None and hasattr(self, "_scene"):
            self._library.rtcReleaseScene(self._scene)

    def first(
        self, origins: NDArray[np.float32], directions: NDArray[np.float32]
    ) -> tuple[NDArray[np.int32], NDArray[np.float32], NDArray[np.float32], NDArray[np.float32]]:
        """The first triangle on each ray; rays that lie together should be neighbours.

        Args:
            origins, directions: N x 3.

        Returns:
            Its number (-1 for none), its distance in lengths of the direction, and the weights of its corners 1 and 2.
        """
        if self._library is None:
            starts, rays = (np.ascontiguousarray(x, np.float32) for x in (origins, directions))
            found = self._plain.run(starts, rays, query="INTERSECT", output=1)
            missed = (found["primID"] < 0) | (found["tfar"] > 1e6)
            return np.where(missed, -1, found["primID"]).astype(np.int32), found["tfar"], found["u"], found["v"]
        face = np.empty(len(directions), np.int32)
        distance, u, v = (np.empty(len(directions), np.float32) for _ in range(3))
        for part, packets in self._followed(origins, directions, np.inf):
            count = part.stop - part.start
            for row, out in ((_FAR, distance), (_U, u), (_V, v)):
                out[part] = self._packets[:packets, row].reshape(-1)[:count]
            face[part] = self._numbers[:packets, _FACE].reshape(-1)[:count]
        return face, distance, u, v

    def blocked(self, origins: NDArray[np.float32], directions: NDArray[np.float32]) -> NDArray[np.bool_]:
        """Whether anything lies between each origin and origin + direction. Args: N x 3 each."""
        if self._library is None:
            starts, rays = (np.ascontiguousarray(x, np.float32) for x in (origins, directions))
            hit = self._plain.run(starts, rays, query="OCCLUDED", dists=np.ones(len(rays), np.float32))
            return np.asarray(hit) >= 0
        # rtcOccluded16 would do, but is slower: on coherent rays that of Embree 4.4 ends with a fault under AVX-512.
        result = np.empty(len(directions), bool)
        for part, packets in self._followed(origins, directions, 1.0):
            result[part] = (self._numbers[:packets, _FACE].reshape(-1) >= 0)[: part.stop - part.start]
        return result

    def _followed(
        self, origins: NDArray[np.float32], directions: NDArray[np.float32], far: float
    ) -> Iterator[tuple[slice, int]]:
        """Follow rays in packets, as many as fit at a time; yields which rays, and in how many packets they are."""
        size, first = self._packets.strides[0], self._packets.ctypes.data
        every, how = self._all.ctypes.data, ctypes.addressof(self._arguments)
        for start in range(0, len(directions), _PACKETS * PACKET):
            part = slice(start, min(start + _PACKETS * PACKET, len(directions)))
            whole, rest = divmod(part.stop - start, PACKET)
            packets = whole + bool(rest)
            for row, values in ((_ORIGIN, origins), (_DIRECTION, directions)):
                for axis in range(3):
                    numbers = values[part, axis]
                    self._packets[:whole, row + axis] = numbers[: whole * PACKET].reshape(whole, PACKET)
                    if rest:  # rays beyond the last repeat it
                        self._packets[whole, row + axis] = numbers[-1]
                        self._packets[whole, row + axis, :rest] = numbers[whole * PACKET :]
            self._packets[:packets, _FAR] = far
            self._numbers[:packets, _FACE:] = -1
            for packet in range(first, first + packets * size, size):
                self._library.rtcIntersect16(every, self._scene, packet, how)
            yield part, packets


@functools.cache
def _library() -> Any:
    """Embree as embreex installs it, or None."""
    package = Path(embreex.__file__).parent
    for folder in (package.parent / "embreex.libs", package / ".dylibs", package):
        for path in sorted(folder.glob("*embree4*")):
            try:
                found = ctypes.CDLL(str(path))
                _declare(found)
                return found
            except (OSError, AttributeError) as error:
                log.debug("%s: %s", path, error)
    log.info("no Embree 4 library beside embreex: rays go one at a time")
    return None


@functools.cache
def _device() -> int:
    """The one device of this process. Rooms are made by many processes, so it has one thread; a second device, even
    after the first is gone, would have another that spins."""
    return _library().rtcNewDevice(b"threads=1")


def _declare(library: Any) -> None:
    """Types of the functions that are called.

    Raises:
        AttributeError: the library lacks one.
    """
    pointer, size = c_void_p, c_size_t
    for name, result, arguments in (
        ("rtcNewDevice", pointer, (c_char_p,)),
        ("rtcGetDeviceError", c_int, (pointer,)),
        ("rtcNewScene", pointer, (pointer,)),
        ("rtcNewGeometry", pointer, (pointer, c_int)),
        ("rtcSetSharedGeometryBuffer", None, (pointer, c_int, c_uint, c_int, pointer, size, size, size)),
        ("rtcCommitGeometry", None, (pointer,)),
        ("rtcAttachGeometry", c_uint, (pointer, pointer)),
        ("rtcReleaseGeometry", None, (pointer,)),
        ("rtcCommitScene", None, (pointer,)),
        ("rtcReleaseScene", None, (pointer,)),
        ("rtcIntersect16", None, (pointer, pointer, pointer, pointer)),
    ):
        function = getattr(library, name)
        function.restype, function.argtypes = result, arguments
