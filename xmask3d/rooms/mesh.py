"""Triangle meshes with textures, small enough to keep hundreds of them, for ray casting."""

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from xmask3d.files import atomic_write
from xmask3d.guarded import read_arrays

FloatArray = NDArray[np.float32]
IntArray = NDArray[np.int32]
ByteArray = NDArray[np.uint8]
Color = Sequence[float]


def solid_texture(color: ArrayLike) -> ByteArray:
    """Make a texture of one texel. Args: color: red, green, blue in [0, 1]. Returns 1 x 1 x 3 uint8."""
    return to_bytes(np.asarray(color, np.float64)).reshape(1, 1, 3)


def to_bytes(image: NDArray[np.float64]) -> ByteArray:
    """Round a picture in [0, 1] to uint8; other values are clipped."""
    return np.round(np.clip(image, 0, 1) * 255).astype(np.uint8)


@dataclass
class Mesh:
    """Triangles with a texture per face; a plain colour is a texture of one texel.

    Attributes:
        vertices: V x 3 float32, metres, z up.
        faces: F x 3 int32, indices of vertices.
        uv: F x 3 x 2 float32, texture coordinates of each face's corners; textures repeat outside [0, 1), v points up.
        texture: F int32, index into `textures`.
        textures: uint8 images h x w x 3.
    """

    vertices: FloatArray
    faces: IntArray
    uv: FloatArray
    texture: IntArray
    textures: list[ByteArray] = field(default_factory=list)

    @property
    def bounds(self) -> FloatArray:
        """2 x 3: the smallest and largest coordinates; zeros for a mesh without vertices."""
        if len(self.vertices) == 0:
            return np.zeros((2, 3), np.float32)
        return np.stack([self.vertices.min(0), self.vertices.max(0)])

    @property
    def extent(self) -> FloatArray:
        """Size of the bounding box along x, y, z in metres."""
        low, high = self.bounds
        return high - low

    def moved(self, offset: ArrayLike) -> "Mesh":
        """Return a copy shifted by (x, y, z) metres."""
        return replace(self, vertices=(self.vertices + np.asarray(offset, np.float32)).astype(np.float32))

    def scaled(self, factors: ArrayLike) -> "Mesh":
        """Return a copy scaled about the origin by one factor or by (x, y, z) factors."""
        return replace(self, vertices=(self.vertices * np.asarray(factors, np.float32)).astype(np.float32))

    def turned(self, angle: float) -> "Mesh":
        """Return a copy turned about the z axis by an angle in radians, counter-clockwise seen from above."""
        c, s = np.cos(angle), np.sin(angle)
        rotation = np.array([[c, -s, 0], [s, c, 0], [0, 0, 1]])
        return replace(self, vertices=(self.vertices @ rotation.T).astype(np.float32))

    def standing(self) -> "Mesh":
        """Return a copy whose bounding box stands on the floor, centred at the origin."""
        low, high = self.bounds
        middle = (low + high) / 2
        return self.moved([-middle[0], -middle[1], -low[2]])

    def normals(self) -> FloatArray:
        """Return f x 3 unit normals, zero for a degenerate face."""
        normal = self._area_vectors()
        length = np.maximum(_length(normal), 1e-20)
        return np.stack([(axis / length).astype(np.float32) for axis in normal], 1)

    def areas(self) -> FloatArray:
        """Return f areas in square metres."""
        return (_length(self._area_vectors()) / 2).astype(np.float32)

    def _area_vectors(self) -> list[NDArray[np.float64]]:
        """Return face normals with twice the length of the faces' areas, in a third of the time of `np.cross`."""
        axes = np.ascontiguousarray(self.vertices.T, np.float64)
        first, second, third = (axes.take(corner, 1) for corner in self.faces.T)
        u, v = second - first, third - first
        return [u[i] * v[j] - u[j] * v[i] for i, j in ((1, 2), (2, 0), (0, 1))]

    def save(self, path: Path) -> None:
        """Write the mesh as an npz file, completely or not at all; uncompressed files are read three times as fast."""
        arrays: dict[str, Any] = {"vertices": self.vertices, "faces": self.faces, "uv": self.uv}
        arrays |= {"texture": self.texture} | {f"texture_{i}": image for i, image in enumerate(self.textures)}
        atomic_write(path, lambda part: np.savez(part, **arrays), sync=False)

    @staticmethod
    def load(path: Path) -> "Mesh":
        """Read a file written by `save`. Raises `UserError` if it is damaged."""
        data = read_arrays(path, "a mesh")
        textures = [data[f"texture_{i}"] for i in range(sum(name.startswith("texture_") for name in data))]
        return Mesh(data["vertices"], data["faces"], data["uv"], data["texture"], textures)


def _length(axes: Sequence[NDArray[np.float64]]) -> NDArray[np.float64]:
    x, y, z = axes
    return np.sqrt(x * x + y * y + z * z)


def merge(*meshes: Mesh) -> Mesh:
    """Join meshes into one, with separate textures."""
    if not meshes:
        return Mesh(
            np.zeros((0, 3), np.float32),
            np.zeros((0, 3), np.int32),
            np.zeros((0, 3, 2), np.float32),
            np.zeros(0, np.int32),
        )
    vertex_start = np.cumsum([0] + [len(m.vertices) for m in meshes])
    texture_start = np.cumsum([0] + [len(m.textures) for m in meshes])
    return Mesh(
        np.concatenate([m.vertices for m in meshes]).astype(np.float32),
        np.concatenate([m.faces + start for m, start in zip(meshes, vertex_start, strict=False)]).astype(np.int32),
        np.concatenate([m.uv for m in meshes]).astype(np.float32),
        np.concatenate([m.texture + start for m, start in zip(meshes, texture_start, strict=False)]).astype(np.int32),
        [image for m in meshes for image in m.textures],
    )


def polygons(corners: ArrayLike, image: ByteArray, texel_size: float = 1.0) -> Mesh:
    """Build flat quadrilaterals, textured in metres.

    Args:
        corners: N x 4 x 3, counter-clockwise seen from the front.
        image: texture h x w x 3; one repetition covers `texel_size` metres.
    """
    quads = np.asarray(corners, np.float64).reshape(-1, 4, 3)
    right = quads[:, 1] - quads[:, 0]
    right /= np.maximum(np.linalg.norm(right, axis=1, keepdims=True), 1e-12)
    normal = np.cross(right, quads[:, 3] - quads[:, 0])
    normal /= np.maximum(np.linalg.norm(normal, axis=1, keepdims=True), 1e-12)
    up = np.cross(normal, right)
    local = quads - quads[:, :1]
    uv = np.stack([np.einsum("nij,nj->ni", local, right), np.einsum("nij,nj->ni", local, up)], -1) / texel_size
    base = np.arange(len(quads))[:, None] * 4
    faces = np.concatenate([base + [0, 1, 2], base + [0, 2, 3]])
    face_uv = np.concatenate([uv[:, [0, 1, 2]], uv[:, [0, 2, 3]]])
    return Mesh(
        quads.reshape(-1, 3).astype(np.float32),
        faces.astype(np.int32),
        face_uv.astype(np.float32),
        np.zeros(len(faces), np.int32),
        [image],
    )


def pane(half: float, y: float, low: float, high: float, image: ByteArray) -> Mesh:
    """Build an upright rectangle filled by one picture; it faces -y and extends `half` metres to either side."""
    return filled(polygons([[(-half, y, low), (half, y, low), (half, y, high), (-half, y, high)]], image))


def filled(mesh: Mesh) -> Mesh:
    """Stretch the texture of a single quadrilateral over all of it."""
    mesh.uv = mesh.uv / np.maximum(mesh.uv.max((0, 1)), 1e-6) * np.float32(0.999)
    return mesh


def box(low: ArrayLike, high: ArrayLike, image: ByteArray | Color, texel_size: float = 1.0) -> Mesh:
    """Build an axis-aligned box between two corners, with a texture or a plain colour."""
    (x0, y0, z0), (x1, y1, z1) = np.asarray(low, np.float64), np.asarray(high, np.float64)
    quads = [
        [(x0, y0, z0), (x1, y0, z0), (x1, y0, z1), (x0, y0, z1)],
        [(x1, y1, z0), (x0, y1, z0), (x0, y1, z1), (x1, y1, z1)],
        [(x0, y1, z0), (x0, y0, z0), (x0, y0, z1), (x0, y1, z1)],
        [(x1, y0, z0), (x1, y1, z0), (x1, y1, z1), (x1, y0, z1)],
        [(x0, y0, z1), (x1, y0, z1), (x1, y1, z1), (x0, y1, z1)],
        [(x0, y1, z0), (x1, y1, z0), (x1, y0, z0), (x0, y0, z0)],
    ]
    return polygons(quads, as_texture(image), texel_size)


def lathe(profile: ArrayLike, image: ByteArray | Color, sides: int = 16, stretch: tuple[float, float] = (1, 1)) -> Mesh:
    """Build a surface of revolution about the z axis.

    Args:
        profile: N x 2 rows (radius, height) from bottom to top.
        stretch: factors along x and y, for ovals.
    """
    radius, height = np.asarray(profile, np.float64).T
    angle = np.linspace(0, 2 * np.pi, sides + 1)
    ring = np.stack([np.cos(angle) * stretch[0], np.sin(angle) * stretch[1]], -1)
    grid = np.concatenate(
        [radius[:, None, None] * ring, np.broadcast_to(height[:, None, None], (len(radius), sides + 1, 1))], -1
    )
    return sheet(grid, image)


def sheet(grid: ArrayLike, image: ByteArray | Color, texel_size: float = 1.0) -> Mesh:
    """Build a surface through a grid of points R x C x 3, for cloth and round objects."""
    points = np.asarray(grid, np.float64)
    corners = np.stack([points[:-1, :-1], points[:-1, 1:], points[1:, 1:], points[1:, :-1]], 2)
    return polygons(corners.reshape(-1, 4, 3), as_texture(image), texel_size)


def as_texture(image: ByteArray | Color) -> ByteArray:
    """Return a texture, given a texture or a colour in [0, 1]."""
    array = np.asarray(image)
    return array if array.ndim == 3 else solid_texture(array)
