"""Shading of surfaces in a room's light: embreex casts the rays, NumPy shades their hits."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from xmask3d.errors import missing_extra
from xmask3d.rooms.mesh import FloatArray, Mesh

try:
    from embreex import rtcore_scene
    from embreex.mesh_construction import TriangleMesh
except ImportError as error:
    raise missing_extra("drawing rooms", "rooms") from error


@dataclass(frozen=True)
class Light:
    """A room's light.

    Attributes:
        ambient: share of light from all directions.
        sun: unit vector towards a distant light.
        sun_strength: share of the distant light.
        lamp: position of a lamp in metres, or None.
        lamp_strength: share of the lamp's light at a distance of 2 m.
        tint: red, green and blue factors.
        shadows: objects cast shadows in the lamp's light, which needs another ray per pixel.
    """

    ambient: float = 0.5
    sun: tuple[float, float, float] = (-0.35, -0.6, 0.72)
    sun_strength: float = 0.5
    lamp: tuple[float, float, float] | None = None
    lamp_strength: float = 0.0
    tint: tuple[float, float, float] = (1.0, 1.0, 1.0)
    shadows: bool = False


@dataclass(frozen=True)
class Hits:
    """Hits of rays: N faces (-1 for a miss), distances along the given directions, and colours in [0, 1]."""

    face: NDArray[np.int32]
    distance: NDArray[np.float32]
    color: NDArray[np.float32]


@dataclass(frozen=True)
class Looks:
    """Appearance of every triangle. All textures are concatenated, so that a single look-up serves all pixels.

    Attributes:
        normals: F x 3.
        daylight: 2 x F, on the front and the back of each face.
        texels: T x 3 uint8, the concatenated textures.
        texture_start, texture_width, texture_height: position and size of each texture.
    """

    normals: FloatArray
    daylight: FloatArray
    texels: NDArray[np.uint8]
    texture_start: NDArray[np.int64]
    texture_width: NDArray[np.int32]
    texture_height: NDArray[np.int32]

    @staticmethod
    def of(mesh: Mesh, light: Light) -> "Looks":
        """Compute the appearance of a mesh's faces under a light."""
        normals = mesh.normals()
        # Half-Lambert: no side is completely black, as in a room where light bounces often.
        slope = normals @ np.asarray(light.sun, np.float32) / 2
        daylight = light.ambient + light.sun_strength * np.stack([0.5 + slope, 0.5 - slope]) ** 2
        height = np.array([image.shape[0] for image in mesh.textures], np.int32)
        width = np.array([image.shape[1] for image in mesh.textures], np.int32)
        start = np.concatenate([[0], np.cumsum(height * width)[:-1]]).astype(np.int64)
        texels = np.concatenate([image.reshape(-1, 3) for image in mesh.textures])
        return Looks(normals, daylight.astype(np.float32), texels, start, width, height)


class RayCaster:
    """Ray caster. Each axis is a contiguous row, since NumPy is slow on rows of two or three numbers.

    Args:
        mesh: mesh in the world frame.
        looks: appearance of its faces.
        light: light on the faces.
    """

    def __init__(self, mesh: Mesh, looks: Looks, light: Light) -> None:
        self.light, self.looks, self.mesh = light, looks, mesh
        self._normal_axes = np.ascontiguousarray(looks.normals.T)
        corners = np.ascontiguousarray(mesh.uv.transpose(2, 1, 0))
        self._uv = [(first, second - first, third - first) for first, second, third in corners]
        self._scene = rtcore_scene.EmbreeScene()
        vertices, faces = np.ascontiguousarray(mesh.vertices, np.float32), np.ascontiguousarray(mesh.faces, np.int32)
        TriangleMesh(self._scene, vertices, faces)

    def cast(self, starts: NDArray[np.floating], rays: NDArray[np.floating], colored: bool = True) -> Hits:
        """Follow rays, of any length, to the first surface.

        Args:
            starts, rays: N x 3.
            colored: compute the colours; otherwise they are black.
        """
        starts, rays = np.ascontiguousarray(starts, np.float32), np.ascontiguousarray(rays, np.float32)
        face, distance, weights = self.trace(starts, rays)
        hit = (face >= 0) & (distance < 1e6)
        if colored and hit.all():
            points = _advanced(starts, rays, distance)
            return Hits(face, distance, self.shade(points, face, self.surface_color(face, weights), rays))
        color = np.zeros((len(face), 3), np.float32)
        if colored:
            points = _advanced(starts[hit], rays[hit], distance[hit])
            color[hit] = self.shade(points, face[hit], self.surface_color(face[hit], weights[hit]), rays[hit])
        return Hits(np.where(hit, face, -1).astype(np.int32), np.where(hit, distance, 0).astype(np.float32), color)

    def trace(
        self, starts: FloatArray, rays: FloatArray
    ) -> tuple[NDArray[np.int32], NDArray[np.float32], NDArray[np.float32]]:
        """Follow N contiguous rays to the first surface.

        Returns:
            N faces (-1 for a miss), distances along the rays, and N x 2 barycentric weights of corners 1 and 2.
        """
        result = self._scene.run(starts, rays, query="INTERSECT", output=1)
        return result["primID"], result["tfar"], np.stack([result["u"], result["v"]], -1)

    def blocked(self, starts: FloatArray, rays: FloatArray, reach: NDArray[np.float32]) -> NDArray[np.bool_]:
        """Return True for each of N rays that hits a surface within `reach` times its length."""
        starts, rays = np.ascontiguousarray(starts, np.float32), np.ascontiguousarray(rays, np.float32)
        return np.asarray(self._scene.run(starts, rays, query="OCCLUDED", dists=np.asarray(reach, np.float32))) >= 0

    def surface_color(self, face: NDArray[np.int32], weights: NDArray[np.float32]) -> NDArray[np.float32]:
        """Return the unlit colour at N points. Args: face: N; weights: N x 2 barycentric weights of corners 1 and 2.

        Returns:
            N x 3 in [0, 1].
        """
        first, second = np.ascontiguousarray(weights.T)
        place = []
        for corner, along_first, along_second in self._uv:
            value = corner.take(face) + along_first.take(face) * first
            value += along_second.take(face) * second
            value -= np.floor(value)
            place.append(value)
        texture = self.mesh.texture.take(face)
        width, height = self.looks.texture_width.take(texture), self.looks.texture_height.take(texture)
        column = np.minimum((place[0] * width).astype(np.int32), width - 1)
        row = np.minimum(((1 - place[1]) * height).astype(np.int32), height - 1)
        texels = self.looks.texels.take(self.looks.texture_start.take(texture) + row * width + column, 0)
        return texels.astype(np.float32) / np.float32(255)

    def shade(
        self, points: FloatArray, face: NDArray[np.int32], color: FloatArray, rays: FloatArray | None = None
    ) -> FloatArray:
        """Light N surface points, N x 3 colours in [0, 1], on the side from which `rays` see them."""
        light = self.light
        normal = [axis.take(face) for axis in self._normal_axes]
        back = np.zeros(len(face), bool) if rays is None else dot(normal, rays.T) > 0
        strength = self.looks.daylight.take(back.astype(np.int64) * self.looks.daylight.shape[1] + face)
        if light.lamp is not None and light.lamp_strength > 0:
            side = np.where(back, -1, 1).astype(np.float32)
            strength = strength + self._lamp_light(points.T, [axis * side for axis in normal])
        strength = strength.astype(np.float32)
        lit = np.empty_like(color)
        for channel, tint in enumerate(np.asarray(light.tint, np.float32)):
            np.multiply(color[:, channel] * strength, tint, out=lit[:, channel])
        return lit

    def _lamp_light(self, points: FloatArray, normal: Sequence[FloatArray]) -> FloatArray:
        """Return the lamp's share of light at N points, float32. Args: points, normal: three axes of N numbers each."""
        light = self.light
        towards = [lamp - axis for lamp, axis in zip(np.asarray(light.lamp, np.float32), points, strict=True)]
        square = np.maximum(dot(towards, towards), 1e-3)
        facing = np.maximum(dot(normal, towards) / np.sqrt(square), 0)
        strength = light.lamp_strength * facing * 8 / (4 + square)
        if light.shadows:
            lit = np.flatnonzero(facing > 0)
            origin, direction = np.empty((len(lit), 3), np.float32), np.empty((len(lit), 3), np.float32)
            for k in range(3):
                origin[:, k] = points[k].take(lit) + normal[k].take(lit) * np.float32(5e-3)
                direction[:, k] = towards[k].take(lit)
            blocked = self._scene.run(origin, direction, query="OCCLUDED", dists=np.ones(len(lit), np.float32))
            strength[lit] *= np.where(np.asarray(blocked) >= 0, 0.35, 1.0)
        return strength.astype(np.float32)


def _advanced(starts: FloatArray, rays: FloatArray, distance: FloatArray) -> FloatArray:
    """Return the points of N rays at their distances, N x 3; each of the three axes is contiguous."""
    points = np.empty((3, len(rays)), np.float32)
    for axis, start, ray in zip(points, starts.T, rays.T, strict=True):
        np.multiply(ray, distance, out=axis)
        axis += start
    return points.T


def dot(one: Sequence[FloatArray], other: Sequence[FloatArray]) -> FloatArray:
    """Return the dot products of N pairs of vectors, each given by its three axes."""
    return one[0] * other[0] + one[1] * other[1] + one[2] * other[2]
