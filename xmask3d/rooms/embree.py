"""Embree's own interface, where the package embreex brings that library: triangles taken where they lie, and the
functions that follow rays, for compiled loops (`xmask3d/native/rays.py`) to call.

embreex itself follows one ray at a time, and copies triangles one number at a time.
"""

import ctypes
import functools
import logging
from ctypes import c_char_p, c_int, c_size_t, c_uint, c_void_p
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from xmask3d.errors import missing_extra

try:
    import embreex
except ImportError as error:
    raise missing_extra("drawing rooms", "rooms") from error

log = logging.getLogger(__name__)

_TRIANGLE, _INDEX, _VERTEX, _UINT3, _FLOAT3 = 0, 0, 1, 0x5003, 0x9003
_ROBUST = 1 << 2  # as embreex asks: no ray slips through an edge


class Scene:
    """Triangles ready for rays.

    Args:
        vertices: V x 3 float32.
        faces: F x 3 int32, positions in `vertices`.

    Attributes:
        handle: Embree's address of the scene.

    Raises:
        MemoryError: Embree cannot take them.
    """

    def __init__(self, vertices: NDArray[np.float32], faces: NDArray[np.int32]) -> None:
        call, device = library(), _device()
        self._vertices = np.zeros((len(vertices) + 2, 3), np.float32)  # Embree reads some bytes beyond the last
        self._vertices[:-2] = vertices
        self._faces = np.ascontiguousarray(faces, np.int32)
        self.handle = call.rtcNewScene(device)
        call.rtcSetSceneFlags(self.handle, _ROBUST)
        geometry = call.rtcNewGeometry(device, _TRIANGLE)
        for kind, layout, array, count in (
            (_VERTEX, _FLOAT3, self._vertices, len(vertices)),
            (_INDEX, _UINT3, self._faces, len(faces)),
        ):
            call.rtcSetSharedGeometryBuffer(geometry, kind, 0, layout, array.ctypes.data, 0, 12, count)
        call.rtcCommitGeometry(geometry)
        call.rtcAttachGeometry(self.handle, geometry)
        call.rtcReleaseGeometry(geometry)
        call.rtcCommitScene(self.handle)
        if call.rtcGetDeviceError(device):
            raise MemoryError(f"Embree takes no scene of {len(faces)} triangles")

    def __del__(self) -> None:
        if getattr(self, "handle", None):
            library().rtcReleaseScene(self.handle)


def function(name: str) -> int:
    """Address of one of Embree's functions."""
    return ctypes.cast(getattr(library(), name), c_void_p).value or 0


@functools.cache
def library() -> Any:
    """Embree 4 as embreex installs it, or None."""
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
    return library().rtcNewDevice(b"threads=1")


def _declare(found: Any) -> None:
    """Types of the functions that are called.

    Raises:
        AttributeError: the library lacks one.
    """
    pointer, size = c_void_p, c_size_t
    for name, result, arguments in (
        ("rtcNewDevice", pointer, (c_char_p,)),
        ("rtcGetDeviceError", c_int, (pointer,)),
        ("rtcNewScene", pointer, (pointer,)),
        ("rtcSetSceneFlags", None, (pointer, c_int)),
        ("rtcNewGeometry", pointer, (pointer, c_int)),
        ("rtcSetSharedGeometryBuffer", None, (pointer, c_int, c_uint, c_int, pointer, size, size, size)),
        ("rtcCommitGeometry", None, (pointer,)),
        ("rtcAttachGeometry", c_uint, (pointer, pointer)),
        ("rtcReleaseGeometry", None, (pointer,)),
        ("rtcCommitScene", None, (pointer,)),
        ("rtcReleaseScene", None, (pointer,)),
        ("rtcIntersect1", None, (pointer, pointer, pointer)),
        ("rtcIntersect16", None, (pointer, pointer, pointer, pointer)),
        ("rtcOccluded16", None, (pointer, pointer, pointer, pointer)),
    ):
        call = getattr(found, name)
        call.restype, call.argtypes = result, arguments
