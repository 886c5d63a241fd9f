"""Depth maps of a cloud or a mesh: points are drawn as discs that close the gaps between them, faces by rays."""

from pathlib import Path
from typing import NamedTuple, Protocol

import numpy as np

from xmask3d.geometry.ply import read_header
from xmask3d.geometry.voxels import quantise
from xmask3d.scan.mesh_files import load

NEIGHBOUR = 5  # the distance of this neighbour determines the size of a point's disc
DISC = 0.75  # ratio of a disc's radius to that distance, which closes gaps and hardly widens edges
LARGEST = 3.0  # largest radius of a disc, as a multiple of the median, so that a lone point hides little
MOST_PIXELS = 40  # largest radius of a disc close to the camera
CLOSEST = 0.02  # points closer to the camera than this share of the scene's size are not drawn
MOST_POINTS = 600_000  # more points than this are thinned
SAMPLED = 400_000  # points sampled on a mesh if rays cannot be cast
OUTSIDE = 0.5  # if the discs at a pixel lie to one side by this share of their radius, the pixel is beyond their edge
SAME_SURFACE = 0.02  # discs within this share of the depth belong to one surface
MESHES = (".ply", ".obj", ".glb", ".gltf", ".stl", ".off")


class DepthRenderer(Protocol):
    """Renderer of depth maps of a geometry."""

    def depth(self, pose: np.ndarray, matrix: np.ndarray, size: tuple[int, int]) -> np.ndarray:
        """Return the depth of every pixel, h x w float32, 0 where nothing is visible.

        Args:
            pose: 4 x 4 camera to world, y down, z forward.
            matrix: 3 x 3 pinhole matrix.
            size: height and width.
        """


class PointRenderer:
    """Renderer of points as discs as wide as the gaps around them; a pixel is the mean of its nearest surface's discs.

    Args:
        points: n x 3.
    """

    def __init__(self, points: np.ndarray) -> None:
        from scipy.spatial import cKDTree

        self._points = _thinned(points.astype(np.float32))
        count = min(NEIGHBOUR + 1, len(self._points))
        radius = DISC * cKDTree(self._points).query(self._points, k=[count])[0][:, 0]
        self._radius = np.minimum(radius, LARGEST * np.median(radius)).astype(np.float32)
        self._closest = CLOSEST * float(np.ptp(np.percentile(self._points, (2, 98), axis=0), axis=0).max()) / 2

    def depth(self, pose: np.ndarray, matrix: np.ndarray, size: tuple[int, int]) -> np.ndarray:
        """Return the depth of every pixel; see `DepthRenderer`."""
        height, width = size
        seen = (self._points - pose[:3, 3].astype(np.float32)) @ pose[:3, :3].astype(np.float32)
        ahead = np.flatnonzero(seen[:, 2] > self._closest)
        z, radius = seen[ahead, 2], self._radius[ahead]
        column, row = (seen[ahead, i] / z * matrix[i, i] + matrix[i, 2] for i in (0, 1))
        reach = np.clip(radius * matrix[0, 0] / z, 0.5, MOST_PIXELS)
        inside = (column > -reach) & (column < width + reach) & (row > -reach) & (row < height + reach)
        z, radius, column, row, reach = (values[inside] for values in (z, radius, column, row, reach))
        discs = _discs(column, row, reach, size)
        shades = np.stack([np.ones(len(z)), z, column, row, reach], 1)
        count = height * width
        first, front = _nearest_surface(discs, z, radius, shades, count)
        # Beyond an edge all discs are on one side of the pixel; in a gap of a surface they are all around it.
        off = np.hypot(
            first[:, 2] - np.tile(np.arange(width), height), first[:, 3] - np.repeat(np.arange(height), width)
        )
        outside = off > OUTSIDE * first[:, 4]
        behind = ~front & outside[discs.pixel]
        second, _ = _nearest_surface(discs.of(behind), z, radius, shades, count)
        depth = np.where(outside & (second[:, 0] > 0), second[:, 1], first[:, 1])
        return depth.astype(np.float32).reshape(size)


class _Discs(NamedTuple):
    """Pixels of discs: the pixel, the disc, and a weight that decreases from the middle."""

    pixel: np.ndarray
    disc: np.ndarray
    weight: np.ndarray

    def of(self, chosen: np.ndarray) -> "_Discs":
        return _Discs(self.pixel[chosen], self.disc[chosen], self.weight[chosen])


def _nearest_surface(
    discs: _Discs, z: np.ndarray, radius: np.ndarray, values: np.ndarray, count: int
) -> tuple[np.ndarray, np.ndarray]:
    """Return mean values of the nearest surface's discs at each of `count` pixels, and True for each such disc.

    Args:
        z, radius: depth and radius of each disc.
        values: one row per disc, whose first value is 1; the result is 0 where there is no surface.
    """
    front = np.full(count, np.inf, np.float32)
    np.minimum.at(front, discs.pixel, z[discs.disc])
    near = z[discs.disc] <= front[discs.pixel] * (1 + SAME_SURFACE) + radius[discs.disc]
    pixel, disc, weight = discs.of(near)
    total = np.maximum(np.bincount(pixel, weight, count), 1e-12)
    sums = [np.bincount(pixel, weight * column[disc], count) / total for column in values.T]
    return np.stack(sums, 1), near


def _discs(column: np.ndarray, row: np.ndarray, reach: np.ndarray, size: tuple[int, int]) -> _Discs:
    """Return the pixels of all discs, up to `reach` pixels from their middle."""
    parts = []
    whole = np.ceil(reach).astype(int)
    for radius in np.unique(whole):
        discs = np.flatnonzero(whole == radius)
        steps = np.arange(-radius, radius + 1)
        down, across = (offset.ravel() for offset in np.meshgrid(steps, steps, indexing="ij"))
        y, x = np.rint(row[discs])[:, None] + down, np.rint(column[discs])[:, None] + across
        distance = ((y - row[discs, None]) ** 2 + (x - column[discs, None]) ** 2) / reach[discs, None] ** 2
        nearest = (down == 0) & (across == 0)
        drawn = ((distance <= 1) | nearest) & (y >= 0) & (y < size[0]) & (x >= 0) & (x < size[1])
        disc, _ = np.nonzero(drawn)
        pixel = (y[drawn] * size[1] + x[drawn]).astype(np.int64)
        parts.append((pixel, discs[disc], np.exp(-2 * distance[drawn])))
    if not parts:
        return _Discs(np.zeros(0, np.int64), np.zeros(0, np.int64), np.zeros(0))
    return _Discs(*(np.concatenate(values) for values in zip(*parts, strict=True)))


def _thinned(points: np.ndarray) -> np.ndarray:
    """Keep one point per voxel, with voxels large enough to leave at most `MOST_POINTS`."""
    spacing = float(np.ptp(points, axis=0).max()) / 2000
    while len(points) > MOST_POINTS:
        points = points[quantise(np.floor(points.astype(np.float64) / spacing)).first_point]
        spacing *= 1.4
    return points


class RayRenderer:
    """Renderer of faces with rays cast by embreex.

    Args:
        vertices: n x 3. faces: m x 3.

    Raises:
        ImportError: embreex is not installed.
    """

    def __init__(self, vertices: np.ndarray, faces: np.ndarray) -> None:
        from embreex import rtcore_scene
        from embreex.mesh_construction import TriangleMesh

        self._scene = rtcore_scene.EmbreeScene()
        TriangleMesh(self._scene, np.ascontiguousarray(vertices, np.float32), np.ascontiguousarray(faces, np.int32))

    def depth(self, pose: np.ndarray, matrix: np.ndarray, size: tuple[int, int]) -> np.ndarray:
        """Return the depth of every pixel; see `DepthRenderer`."""
        rotation, origin = pose[:3, :3].astype(np.float32), pose[:3, 3].astype(np.float32)
        across = ((np.arange(size[1]) - matrix[0, 2]) / matrix[0, 0]).astype(np.float32)[:, None] * rotation[:, 0]
        down = ((np.arange(size[0]) - matrix[1, 2]) / matrix[1, 1]).astype(np.float32)[:, None] * rotation[:, 1]
        # z = 1 in the camera's frame, so the distance along the ray equals the depth.
        rays = np.ascontiguousarray((across + down[:, None] + rotation[:, 2]).reshape(-1, 3))
        starts = np.ascontiguousarray(np.broadcast_to(origin, rays.shape))
        hits = self._scene.run(starts, rays, query="INTERSECT", output=1)
        return np.where(hits["primID"] >= 0, hits["tfar"], 0).astype(np.float32).reshape(size)


def read_faces(path: Path) -> tuple[np.ndarray, np.ndarray] | None:
    """Read vertices (n x 3 float64) and triangles (m x 3) of a mesh; None for a cloud."""
    suffix = path.suffix.lower()
    if suffix not in MESHES:
        return None
    if suffix == ".ply":
        with path.open("rb") as file:
            elements = read_header(file)[1]
        if not any(element.name == "face" and element.rows for element in elements):
            return None
    import trimesh

    loaded, _ = load(path)
    mesh = loaded.to_mesh() if isinstance(loaded, trimesh.Scene) else loaded
    if not isinstance(mesh, trimesh.Trimesh) or 2 * len(mesh.faces) < len(mesh.vertices):
        return None  # a few stray faces among points are no surface
    return np.asarray(mesh.vertices, np.float64), np.asarray(mesh.faces)


def renderer_of_faces(vertices: np.ndarray, faces: np.ndarray) -> DepthRenderer:
    """Return a renderer of a mesh: by rays if embreex is installed, else by points sampled densely on its faces."""
    try:
        return RayRenderer(vertices, faces)
    except ImportError:
        import trimesh

        mesh = trimesh.Trimesh(vertices, faces, process=False)
        return PointRenderer(np.asarray(trimesh.sample.sample_surface(mesh, SAMPLED, seed=0)[0]))
