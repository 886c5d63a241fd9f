"""The compiled loops that draw rooms, on NumPy arrays."""

from collections.abc import Sequence
from ctypes import Structure, byref, c_float, c_int32, c_int64, c_void_p
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from xmask3d.native.library import array_address, library


class _Surfaces(Structure):
    _fields_ = (
        ("scene", c_void_p), ("intersect1", c_void_p), ("intersect16", c_void_p), ("occluded16", c_void_p),
        ("normals", c_void_p), ("daylight", c_void_p), ("uv", c_void_p), ("texture", c_void_p),
        ("instance", c_void_p), ("label", c_void_p), ("texels", c_void_p), ("texture_start", c_void_p),
        ("texture_width", c_void_p), ("texture_height", c_void_p), ("triangles", c_int64),
        ("lamp", c_float * 3), ("lamp_strength", c_float), ("tint", c_float * 3), ("background", c_float * 3),
        ("shadows", c_int32),
    )  # fmt: skip


class _Picture(Structure):
    _fields_ = (
        ("origins", c_void_p), ("directions", c_void_p), ("across", c_void_p), ("down", c_void_p),
        ("forward", c_float * 3), ("origin", c_float * 3), ("height", c_int64), ("width", c_int64),
        ("face", c_void_p), ("distance", c_void_p), ("color", c_void_p), ("bytes", c_void_p),
        ("instance", c_void_p), ("label", c_void_p),
    )  # fmt: skip


class Surfaces:
    """F triangles of an Embree scene, and how they look.

    Args:
        scene: has Embree's address of it as `handle`.
        functions: addresses of rtcIntersect1, rtcIntersect16 and rtcOccluded16.
        normals: F x 3 float32.
        daylight: 2 x F float32, on the front and on the back.
        uv: F x 3 x 2 float32, texture coordinates of corners.
        texture, instance, label: F int32.
        texels: T x 3 uint8, all textures one after the other.
        texture_start, texture_width, texture_height: of each texture.
        lamp: position of a lamp.
        lamp_strength: 0 for no lamp.
        tint, background: red, green and blue.
        shadows: whether things shade each other from the lamp.

    Raises:
        ValueError: arrays that do not fit each other.
    """

    def __init__(
        self,
        scene: Any,
        functions: Sequence[int],
        normals: NDArray,
        daylight: NDArray,
        uv: NDArray,
        texture: NDArray,
        instance: NDArray,
        label: NDArray,
        texels: NDArray,
        texture_start: NDArray,
        texture_width: NDArray,
        texture_height: NDArray,
        lamp: ArrayLike = (0, 0, 0),
        lamp_strength: float = 0.0,
        tint: ArrayLike = (1, 1, 1),
        background: ArrayLike = (0, 0, 0),
        shadows: bool = False,
    ) -> None:
        count = len(normals)
        per_face = [(normals, (count, 3)), (daylight, (2, count)), (uv, (count, 3, 2))]
        per_face += [(array, (count,)) for array in (texture, instance, label)]
        if any(array.shape != shape for array, shape in per_face) or texels.shape[1:] != (3,):
            raise ValueError(f"{[array.shape for array, _ in per_face]} do not all belong to {count} triangles")
        if np.min(texture) < 0 or np.max(texture) >= len(texture_start):
            raise ValueError(f"a triangle has a texture beyond the {len(texture_start)} there are")
        ends = np.asarray(texture_start) + np.asarray(texture_width, np.int64) * texture_height
        if ends.max() > len(texels):
            raise ValueError(f"textures end at {ends.max()}, beyond the {len(texels)} texels")
        floats = [np.ascontiguousarray(array, np.float32) for array in (normals, daylight, uv)]
        whole = [np.ascontiguousarray(array, np.int32) for array in (texture, instance, label)]
        place: list[NDArray] = [np.ascontiguousarray(texels, np.uint8), np.ascontiguousarray(texture_start, np.int64)]
        place += [np.ascontiguousarray(array, np.int32) for array in (texture_width, texture_height)]
        self._kept: list[NDArray] = [*floats, *whole, *place]
        self._scene = scene
        self._native = _Surfaces(
            scene.handle, *functions, *(array.ctypes.data for array in self._kept), count,
            _three(lamp), lamp_strength, _three(tint), _three(background), shadows,
        )  # fmt: skip

    def cast(
        self, origins: NDArray, directions: NDArray, colored: bool
    ) -> tuple[NDArray[np.int32], NDArray[np.float32], NDArray[np.float32]]:
        """Follow N rays. Args: origins, directions: N x 3 float32.

        Returns:
            Triangles (-1 for none), distances (0 for none), and colours N x 3 (black for none, or if not wanted).
        """
        rays, starts = (np.ascontiguousarray(array, np.float32) for array in (directions, origins))
        if rays.shape[1:] != (3,) or starts.shape != rays.shape:
            raise ValueError(f"origins {starts.shape} and directions {rays.shape}: N x 3 each")
        count = len(rays)
        face, distance = np.empty(count, np.int32), np.empty(count, np.float32)
        color = (np.empty if colored else np.zeros)((count, 3), np.float32)
        self._draw(1, count, origins=starts, directions=rays, face=face, distance=distance, color=colored and color)
        return face, distance, color

    def render(
        self, origin: ArrayLike, across: NDArray, down: NDArray, forward: ArrayLike, colored: bool
    ) -> tuple[NDArray[np.uint8], NDArray[np.float32], NDArray[np.int32], NDArray[np.int32]]:
        """Draw a picture whose rays begin at `origin`, in directions across[column] + down[row] + forward.

        Args:
            origin, forward: 3 numbers each.
            across, down: W x 3 and H x 3 float32.

        Returns:
            Colours H x W x 3 (black if not wanted), distances (0 for none), instances (-1) and labels (255).

        Raises:
            ValueError: other shapes.
        """
        across, down = (np.ascontiguousarray(array, np.float32) for array in (across, down))
        if across.shape[1:] != (3,) or down.shape[1:] != (3,):
            raise ValueError(f"across {across.shape} and down {down.shape}: W x 3 and H x 3")
        size = height, width = len(down), len(across)
        color = (np.empty if colored else np.zeros)((*size, 3), np.uint8)
        distance, instance, label = np.empty(size, np.float32), np.empty(size, np.int32), np.empty(size, np.int32)
        wanted = {"distance": distance, "instance": instance, "label": label, "bytes": colored and color}
        self._draw(height, width, across=across, down=down, origin=origin, forward=forward, **wanted)
        return color, distance, instance, label

    def _draw(self, height: int, width: int, **values: Any) -> None:
        """Arrays by the names of `_Picture`; what is left out, or False, is not wanted."""
        picture = _Picture(height=height, width=width)
        for name, value in values.items():
            if name in ("forward", "origin"):
                setattr(picture, name, _three(value))
            elif value is not False:
                setattr(picture, name, value.ctypes.data)
        library().xm_cast(byref(self._native), byref(picture))


def _three(values: ArrayLike) -> Any:
    return (c_float * 3)(*np.asarray(values, np.float32).tolist())


def normals(vertices: NDArray, faces: NDArray) -> NDArray[np.float32]:
    """Unit normals of F triangles, F x 3, zero for one without area. Args: vertices: V x 3; faces: F x 3.

    Raises:
        ValueError: a corner that is no vertex.
    """
    points, corners = np.ascontiguousarray(vertices, np.float32), np.ascontiguousarray(faces, np.int32)
    if corners.size and (corners.min() < 0 or corners.max() >= len(points)):
        raise ValueError(f"a triangle has a corner beyond the {len(points)} vertices")
    result = np.empty((len(corners), 3), np.float32)
    library().xm_normals(array_address(points), array_address(corners), c_int64(len(corners)), array_address(result))
    return result
