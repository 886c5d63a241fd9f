"""Light that reaches a camera in a room, before the camera's own errors; one ray per pixel."""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from xmask3d.rooms.mesh import ByteArray
from xmask3d.rooms.render import Renderer, camera_rays
from xmask3d.rooms.shading import dot
from xmask3d.rooms.structure import BuiltRoom

PlainArray = NDArray[np.float32]


@dataclass(frozen=True)
class Sunbeam:
    """Sunlight that falls in through a window.

    Attributes:
        sun: unit vector towards the sun.
        axis: axis across the window's wall, 0 or 1. place: coordinate of the wall along it.
        low, high: corners of the opening, along the other horizontal axis and z.
        strength: light on a surface that faces the sun.
    """

    sun: tuple[float, float, float]
    axis: int
    place: float
    low: tuple[float, float]
    high: tuple[float, float]
    strength: float


@dataclass(frozen=True)
class Surfaces:
    """Properties of F faces that a camera needs.

    Attributes:
        outside: bool, faces through which the outside is seen.
        shine: float32, 0 for matt surfaces to 1 for mirrors.
    """

    outside: NDArray[np.bool_]
    shine: PlainArray


@dataclass(frozen=True)
class ScannedRoom(BuiltRoom):
    """Room with everything that a camera needs.

    Attributes:
        surfaces: properties of the renderer's faces.
        view: panorama of the outside. outside: its brightness relative to a white wall.
        beam: sunlight, or None.
    """

    surfaces: Surfaces
    view: ByteArray
    outside: float
    beam: Sunbeam | None


@dataclass(frozen=True)
class Film:
    """Light and truth that fall on a camera's film, all H x W.

    Attributes:
        light: x 3 float32, 1 is a white surface in good light; not limited.
        albedo: float32 brightness of the surface's own colour.
        depth: float32 metres along the optical axis, 0 where nothing is hit.
        facing: float32 cosine of the angle between the ray and the surface's normal.
        instance, label: int32 as in `Frame`.
        shine, outside: see `Surfaces`.
    """

    light: PlainArray
    albedo: PlainArray
    depth: PlainArray
    facing: PlainArray
    instance: NDArray[np.int32]
    label: NDArray[np.int32]
    shine: PlainArray
    outside: NDArray[np.bool_]


def expose(room: ScannedRoom, pose: NDArray, intrinsics: NDArray, height: int, width: int) -> Film:
    """Follow the rays of a camera. Args: pose: 4 x 4, camera to world; intrinsics: 3 x 3 or larger, pixels."""
    renderer = room.renderer
    starts, rays = camera_rays(pose, intrinsics, height, width)
    face, distance, weights = renderer.rays.trace(starts, rays)
    hit = (face >= 0) & (distance < 1e6)
    face, distance = np.where(hit, face, 0), np.where(hit, distance, 0).astype(np.float32)
    color = renderer.rays.surface_color(face, weights)
    albedo = (color[:, 0] + color[:, 1] + color[:, 2]) / 3
    normals = renderer.rays.looks.normals[face]
    length = np.sqrt(dot(rays.T, rays.T)).astype(np.float32)
    slope = dot(rays.T, normals.T)
    points = starts + rays * distance[:, None]
    light = renderer.rays.shade(points, face, color, rays) * _corner_shade(points, room.room.size)[:, None]
    if room.beam is not None:
        light += _beam_light(renderer, room.beam, points, normals, slope)[:, None] * color
    through = room.surfaces.outside[face] & hit
    light[through] = _outside(room, rays[through] / length[through, None])
    light[~hit] = 0
    arrays: dict[str, NDArray] = {
        "albedo": albedo,
        "depth": distance,
        "facing": (np.abs(slope) / length).astype(np.float32),
        "instance": np.where(hit, renderer.face_instance[face], -1),
        "label": np.where(hit, renderer.face_label[face], 255),
        "shine": room.surfaces.shine[face],
        "outside": through,
    }
    return Film(light.reshape(height, width, 3), **{k: v.reshape(height, width) for k, v in arrays.items()})


def _corner_shade(points: PlainArray, size: tuple[float, float, float]) -> PlainArray:
    """Return the share of light that reaches N points near the edges of a room of `size`, where walls occlude it."""
    x, y, z = (
        np.minimum(np.abs(axis), np.abs(np.float32(far) - axis)) for axis, far in zip(points.T, size, strict=True)
    )
    # The point may be on the nearest wall, so the second nearest one counts.
    second = np.maximum(np.minimum(x, y), np.minimum(np.maximum(x, y), z))
    return (1 - np.float32(0.28) * np.exp(-second / np.float32(0.25))).astype(np.float32)


def _beam_light(
    renderer: Renderer, beam: Sunbeam, points: PlainArray, normals: PlainArray, behind: PlainArray
) -> PlainArray:
    """Return the sun's light on N points, which is 0 unless they face the sun and see it through the window.

    Args:
        normals: N x 3. behind: N, above 0 where the camera sees the back of a surface.
    """
    sun = np.asarray(beam.sun, np.float32)
    side = np.where(behind > 0, -1, 1)
    slope = (normals[:, 0] * sun[0] + normals[:, 1] * sun[1] + normals[:, 2] * sun[2]) * side
    away = (beam.place - points[:, beam.axis]) / sun[beam.axis]
    across = points[:, 1 - beam.axis] + away * sun[1 - beam.axis]
    up = points[:, 2] + away * sun[2]
    inside = (across > beam.low[0]) & (across < beam.high[0]) & (up > beam.low[1]) & (up < beam.high[1])
    lit = np.flatnonzero(inside & (away > 0.2) & (slope > 0))
    strength = np.zeros(len(points), np.float32)
    if len(lit):
        origin = points[lit] + (normals[lit] * side[lit, None]).astype(np.float32) * np.float32(5e-3)
        shaded = renderer.rays.blocked(origin, np.broadcast_to(sun, origin.shape), away[lit] - 0.15)
        strength[lit] = np.where(shaded, 0, beam.strength * slope[lit])
    return strength


def _outside(room: ScannedRoom, direction: PlainArray) -> PlainArray:
    """Return the light of the outside in N directions, N x 3; it is far away, so only the direction counts."""
    height, width = room.view.shape[:2]
    column = ((np.arctan2(direction[:, 1], direction[:, 0]) / (2 * np.pi) * 2) % 1 * width).astype(np.int64) % width
    row = np.clip((0.5 - direction[:, 2] * 0.8) * height, 0, height - 1).astype(np.int64)
    return room.view[row, column].astype(np.float32) / np.float32(255) * np.float32(room.outside)
