"""Draw meshes by ray casting: colour, depth, instance and label of every pixel."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from embreex import rtcore_scene
from embreex.mesh_construction import TriangleMesh
from numpy.typing import NDArray

from xmask3d.data.rooms.mesh import FloatArray, Mesh, merge


@dataclass(frozen=True)
class Light:
    """A room's light.

    Attributes:
        ambient: share of light that comes from everywhere.
        sun: unit vector towards a far light.
        sun_strength: share of that light.
        lamp: position of a lamp in metres, or None.
        lamp_strength: share of the lamp's light at a distance of 2 m.
        tint: red, green and blue factors.
        shadows: whether things shade each other from the lamp; one more ray a pixel.
    """

    ambient: float = 0.5
    sun: tuple[float, float, float] = (-0.35, -0.6, 0.72)
    sun_strength: float = 0.5
    lamp: tuple[float, float, float] | None = None
    lamp_strength: float = 0.0
    tint: tuple[float, float, float] = (1.0, 1.0, 1.0)
    shadows: bool = False


@dataclass(frozen=True)
class Frame:
    """What a camera sees.

    Attributes:
        color: H x W x 3 uint8.
        depth: H x W float32, metres along the optical axis, 0 where nothing is hit.
        instance: H x W int32, position of the mesh in the renderer's list, -1 where nothing is hit.
        label: H x W int32, class id, 255 where nothing is hit.
    """

    color: NDArray[np.uint8]
    depth: NDArray[np.float32]
    instance: NDArray[np.int32]
    label: NDArray[np.int32]


@dataclass(frozen=True)
class Hits:
    """Where rays end: N faces (-1 for a miss), distances along the given directions, and colours in [0, 1]."""

    face: NDArray[np.int32]
    distance: NDArray[np.float32]
    color: NDArray[np.float32]


class Renderer:
    """Meshes in the world frame, ready for ray casting.

    Args:
        meshes: any number of meshes; an instance is a position in this list.
        labels: class id of each mesh; 255 for all if left out.
        light: how the surfaces are lit.
        background: colour where no surface is hit, red, green, blue in [0, 1].
    """

    def __init__(
        self,
        meshes: Sequence[Mesh],
        labels: Sequence[int] | None = None,
        light: Light | None = None,
        background: Sequence[float] = (0.0, 0.0, 0.0),
    ) -> None:
        self.light = light or Light()
        self.background = np.asarray(background, np.float32)
        self.mesh = merge(meshes)
        if len(self.mesh.faces) == 0:
            raise ValueError("nothing to draw: the meshes have no faces")
        count = [len(mesh.faces) for mesh in meshes]
        self.face_instance = np.repeat(np.arange(len(meshes), dtype=np.int32), count)
        self.face_label = np.repeat(np.asarray([255] * len(meshes) if labels is None else labels, np.int32), count)
        self._normals = self.mesh.normals()
        # Daylight on the front and the back of each face. Half-Lambert: no side is wholly black, as in a room where
        # light bounces often.
        slope = self._normals @ np.asarray(self.light.sun, np.float32) / 2
        self._daylight = self.light.ambient + self.light.sun_strength * np.stack([0.5 + slope, 0.5 - slope]) ** 2
        self._normal_axes = np.ascontiguousarray(self._normals.T)
        corners = np.ascontiguousarray(self.mesh.uv.transpose(2, 1, 0))
        self._uv = [(first, second - first, third - first) for first, second, third in corners]
        self._pack_textures()
        self._scene = rtcore_scene.EmbreeScene()
        TriangleMesh(
            self._scene,
            np.ascontiguousarray(self.mesh.vertices, np.float32),
            np.ascontiguousarray(self.mesh.faces, np.int32),
        )

    def render(
        self,
        pose: NDArray[np.floating],
        intrinsics: NDArray[np.floating],
        height: int,
        width: int,
        colored: bool = True,
    ) -> Frame:
        """Draw one picture.

        Args:
            pose: 4 x 4, camera to world; the camera looks along +z, x right, y down.
            intrinsics: 3 x 3 or larger: focal lengths and principal point in pixels.
            colored: whether the colours are wanted; they are most of the work, and black without.
        """
        k = np.asarray(intrinsics, np.float32)
        rotation = np.asarray(pose, np.float32)[:3, :3]
        # z = 1 in the camera frame, so the distance along such a ray is the depth.
        across = ((np.arange(width, dtype=np.float32) - k[0, 2]) / k[0, 0])[None, :, None] * rotation[:, 0]
        down = ((np.arange(height, dtype=np.float32) - k[1, 2]) / k[1, 1])[:, None, None] * rotation[:, 1]
        rays = (across + down + rotation[:, 2]).reshape(-1, 3)
        hits = self.cast(np.broadcast_to(np.asarray(pose, np.float32)[:3, 3], rays.shape), rays, colored)
        missed = np.flatnonzero(hits.face < 0)
        color = hits.color
        color[missed] = self.background
        instance, label = self.face_instance[hits.face], self.face_label[hits.face]
        instance[missed], label[missed] = -1, 255
        np.clip(color * np.float32(255) + np.float32(0.5), 0, 255, out=color)
        return Frame(
            color.astype(np.uint8).reshape(height, width, 3),
            hits.distance.reshape(height, width),
            instance.reshape(height, width),
            label.reshape(height, width),
        )

    def cast(self, origins: NDArray[np.floating], directions: NDArray[np.floating], colored: bool = True) -> Hits:
        """Follow rays to the first surface.

        Args:
            origins, directions: N x 3; directions need no unit length.
            colored: whether the colours are wanted; black without.
        """
        starts = np.ascontiguousarray(origins, np.float32)
        rays = np.ascontiguousarray(directions, np.float32)
        result = self._scene.run(starts, rays, query="INTERSECT", output=1)
        face, distance = result["primID"], result["tfar"]
        hit = (face >= 0) & (distance < 1e6)
        weights = np.stack([result["u"], result["v"]], -1)
        if colored and hit.all():
            points = _advanced(starts, rays, distance)
            return Hits(face, distance, self.shade(points, face, self.surface_color(face, weights), rays))
        color = np.zeros((len(face), 3), np.float32)
        if colored:
            points = _advanced(starts[hit], rays[hit], distance[hit])
            color[hit] = self.shade(points, face[hit], self.surface_color(face[hit], weights[hit]), rays[hit])
        return Hits(np.where(hit, face, -1).astype(np.int32), np.where(hit, distance, 0).astype(np.float32), color)

    # Below, numbers of one kind lie together (a row an axis): NumPy is slow on rows of two or three numbers.

    def surface_color(self, face: NDArray[np.int32], weights: NDArray[np.float32]) -> NDArray[np.float32]:
        """Unlit colour at N points. Args: face: N; weights: N x 2 barycentric weights of a face's corners 1 and 2.

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
        width, height = self._texture_width.take(texture), self._texture_height.take(texture)
        column = np.minimum((place[0] * width).astype(np.int32), width - 1)
        row = np.minimum(((1 - place[1]) * height).astype(np.int32), height - 1)
        texels = self._texels.take(self._texture_start.take(texture) + row * width + column, 0)
        return texels.astype(np.float32) / np.float32(255)

    def shade(
        self, points: FloatArray, face: NDArray[np.int32], color: FloatArray, rays: FloatArray | None = None
    ) -> FloatArray:
        """Light N surface points: N x 3 colours in [0, 1]; surfaces are lit on the side from which `rays` see them."""
        light = self.light
        normal = [axis.take(face) for axis in self._normal_axes]
        back = np.zeros(len(face), bool) if rays is None else _dot(normal, rays.T) > 0
        strength = self._daylight.take(back.astype(np.int64) * self._daylight.shape[1] + face)
        if light.lamp is not None and light.lamp_strength > 0:
            side = np.where(back, -1, 1).astype(np.float32)
            strength = strength + self._lamp_light(points.T, [axis * side for axis in normal])
        strength = strength.astype(np.float32)
        lit = np.empty_like(color)
        for channel, tint in enumerate(np.asarray(light.tint, np.float32)):
            np.multiply(color[:, channel] * strength, tint, out=lit[:, channel])
        return lit

    def _lamp_light(self, points: FloatArray, normal: Sequence[FloatArray]) -> FloatArray:
        """Share of the lamp's light at N points, float32. Args: points, normal: three axes of N numbers each."""
        light = self.light
        towards = [lamp - axis for lamp, axis in zip(np.asarray(light.lamp, np.float32), points, strict=True)]
        square = np.maximum(_dot(towards, towards), 1e-3)
        facing = np.maximum(_dot(normal, towards) / np.sqrt(square), 0)
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

    def _pack_textures(self) -> None:
        """Lay all textures end to end, so that one look-up serves all pixels."""
        images = self.mesh.textures
        self._texels = np.concatenate([image.reshape(-1, 3) for image in images])
        self._texture_height = np.array([image.shape[0] for image in images], np.int32)
        self._texture_width = np.array([image.shape[1] for image in images], np.int32)
        self._texture_start = np.concatenate([[0], np.cumsum(self._texture_height * self._texture_width)[:-1]])


def _advanced(starts: FloatArray, rays: FloatArray, distance: FloatArray) -> FloatArray:
    """Where N rays are at their distances, N x 3; the three axes lie each on its own."""
    points = np.empty((3, len(rays)), np.float32)
    for axis, start, ray in zip(points, starts.T, rays.T, strict=True):
        np.multiply(ray, distance, out=axis)
        axis += start
    return points.T


def _dot(one: Sequence[FloatArray], other: Sequence[FloatArray]) -> FloatArray:
    """Products of N pairs of vectors, each given by its three axes."""
    return one[0] * other[0] + one[1] * other[1] + one[2] * other[2]


def look_at(eye: Sequence[float] | NDArray, target: Sequence[float] | NDArray) -> NDArray[np.float64]:
    """Camera-to-world matrix (4 x 4) of an upright camera at `eye` that looks at `target`; z is up in the world."""
    position = np.asarray(eye, np.float64)
    forward = np.asarray(target, np.float64) - position
    forward /= np.linalg.norm(forward)
    right = np.cross(forward, [0.0, 0.0, 1.0])
    if np.linalg.norm(right) < 1e-6:
        right = np.array([1.0, 0.0, 0.0])
    right /= np.linalg.norm(right)
    pose = np.eye(4)
    pose[:3, 0], pose[:3, 1], pose[:3, 2], pose[:3, 3] = right, np.cross(forward, right), forward, position
    return pose


def portrait_view(
    mesh: Mesh, azimuth: float, elevation: float, height: int, width: int, fill: float = 0.85
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Pose and intrinsics of a camera that shows one mesh whole.

    Args:
        azimuth: radians, 0 looks at the front (from -y), counter-clockwise seen from above.
        elevation: radians above the horizon.
        fill: share of the picture that the mesh's enclosing sphere spans.
    """
    low, high = mesh.bounds
    center, radius = (low + high) / 2, float(np.linalg.norm(high - low)) / 2
    focal = 1.4 * min(height, width)
    distance = 2 * focal * radius / (fill * min(height, width)) + 1e-3
    direction = np.array([np.sin(azimuth) * np.cos(elevation), -np.cos(azimuth) * np.cos(elevation), np.sin(elevation)])
    pose = look_at(center + direction * distance, center)
    intrinsics = np.array([[focal, 0, (width - 1) / 2], [0, focal, (height - 1) / 2], [0, 0, 1]])
    return pose, intrinsics
