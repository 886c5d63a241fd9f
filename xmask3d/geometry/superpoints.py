"""Over-segmentation of a point cloud into regions that rarely cross a border between objects.

This is Felzenszwalb and Huttenlocher's graph segmentation (IJCV 2004) on nearest neighbours: two regions merge if the
lightest edge between them is not heavier than the internal difference of either. Only edges of the minimum spanning
tree are considered. The loop then runs once per point instead of once per edge, and regions are purer, since no edge
bypasses a region that has stopped growing.
"""

from dataclasses import dataclass

import numpy as np
from scipy.sparse import coo_matrix
from scipy.sparse.csgraph import minimum_spanning_tree
from scipy.spatial import cKDTree

from xmask3d.geometry.nearest import point_spacing
from xmask3d.geometry.voxels import Voxels, quantise

MAX_POINTS = 150_000  # points of a graph; a larger cloud is first thinned to this number of cells
POINTS_AT_ONCE = 1 << 17  # points whose neighbourhoods are in memory at a time
COLOR_WEIGHT = 0.5  # weight of a colour distance of 1, relative to normals at right angles
SMALLEST = 20  # fewest points of a region


@dataclass(frozen=True)
class SurfaceGraph:
    """Neighbouring points of a cloud, and the differences between their surfaces.

    Attributes:
        first, second: E int64, points of each edge, first < second; edges are sorted and distinct.
        bend: E, 1 - |cosine| of the angle between the normals of an edge's points, 0 to 1.
        contrast: E, Euclidean distance of their colours, channels from 0 to 1.
        count: number of points.
    """

    first: np.ndarray
    second: np.ndarray
    bend: np.ndarray
    contrast: np.ndarray
    count: int


def superpoints(points: np.ndarray, colors: np.ndarray | None = None) -> list[np.ndarray]:
    """Divide a cloud into regions, once for each of several strengths.

    No single strength suits every cloud: clean surfaces are divided best by raw colours and the normals of small
    neighbourhoods, noisy surfaces by smoothed colours and the normals of large ones. Votes over all divisions are
    almost as good as the best one in either case.

    Args:
        points: N x 3, metres.
        colors: N x 3 in 0 to 1, or None.

    Returns:
        Regions of the points, N int64 each, see `segment_graph`.
    """
    if len(points) < 2:
        return [np.zeros(len(points), np.int64)]
    if len(points) > MAX_POINTS:
        cells = _thin(points)
        cell = cells.point_to_voxel
        means = _means(points, cell), None if colors is None else _means(colors, cell)
        return [region[cell] for region in superpoints(*means)]
    fine, smooth = (surface_graph(points, colors, normal, color) for normal, color in ((16, 1), (32, 8)))
    divisions = []
    for graph, scales, scale_of_normals in ((fine, (1.0,), 0.2), (smooth, (0.3, 0.6), 0.1)):
        weights = graph.bend + COLOR_WEIGHT * graph.contrast
        divisions += [segment_graph(graph, weights, scale) for scale in scales]
        divisions.append(segment_graph(graph, graph.bend, scale_of_normals))
    return divisions


def surface_graph(
    points: np.ndarray,
    colors: np.ndarray | None = None,
    normal_neighbours: int = 16,
    color_neighbours: int = 1,
    neighbours: int = 12,
) -> SurfaceGraph:
    """Join each point with its nearest neighbours.

    Args:
        points: N x 3, metres, at least two.
        colors: N x 3 in 0 to 1, or None for no contrast.
        normal_neighbours: number of points that a normal is fitted to, including the point itself.
        color_neighbours: number of points that a colour is averaged over, including the point itself.
        neighbours: number of edges from each point.
    """
    count = len(points)
    points = np.asarray(points, np.float64)
    points = points - points.mean(0)  # at the coordinates of a map the normals would lose precision
    wanted = min(max(neighbours + 1, normal_neighbours, color_neighbours), count)
    index = cKDTree(points).query(points, wanted, workers=-1)[1].reshape(count, wanted)
    normals = _normals(points, index[:, :normal_neighbours])
    others = index[:, 1 : neighbours + 1]
    ends = np.stack([np.repeat(np.arange(count), others.shape[1]), others.reshape(-1)])
    low, high = ends.min(0), ends.max(0)
    # of several points in one place, another one may be returned as the point itself
    keys = np.unique((low * count + high)[low != high])
    first, second = keys // count, keys % count
    bend = 1 - np.abs(np.einsum("ij,ij->i", normals[first], normals[second])).clip(0, 1)
    contrast = np.zeros(len(first))
    if colors is not None:
        shades = np.asarray(colors, np.float64)[index[:, :color_neighbours]].mean(1)
        contrast = np.linalg.norm(shades[first] - shades[second], axis=1)
    return SurfaceGraph(first, second, bend, contrast, count)


def segment_graph(graph: SurfaceGraph, weights: np.ndarray, scale: float, smallest: int = SMALLEST) -> np.ndarray:
    """Divide a graph into regions; edges of equal weight are processed in their order.

    Args:
        weights: E, difference between the points of each edge, not negative.
        scale: k of the paper; a larger k makes larger regions.
        smallest: fewest points of a region; a smaller one joins the neighbour that differs least, if it has any.

    Returns:
        N int64, region of each point, numbered from 0 by their first points.
    """
    edges = _spanning_tree(graph, weights)
    parent, size, limit = list(range(graph.count)), [1] * graph.count, [scale] * graph.count

    def root(node: int) -> int:
        while parent[node] != node:
            parent[node] = node = parent[parent[node]]
        return node

    def join(a: int, b: int) -> int:
        larger, other = (a, b) if size[a] >= size[b] else (b, a)
        parent[other] = larger
        size[larger] += size[other]
        return larger

    borders = []
    for first, second, weight in edges:
        a, b = root(first), root(second)
        if weight <= limit[a] and weight <= limit[b]:
            joined = join(a, b)
            limit[joined] = weight + scale / size[joined]
        else:
            borders.append((first, second))
    for first, second in borders:
        a, b = root(first), root(second)
        if min(size[a], size[b]) < smallest:
            join(a, b)
    roots = np.array([root(node) for node in range(graph.count)])
    _, starts, region = np.unique(roots, return_index=True, return_inverse=True)
    return np.argsort(np.argsort(starts))[region]


def _spanning_tree(graph: SurfaceGraph, weights: np.ndarray) -> list[tuple[int, int, float]]:
    """Return edges of the minimum spanning forest, lightest first."""
    # To scipy a weight of zero means no edge. Ranks instead of weights also leave no ties.
    ranks = np.empty(len(weights))
    ranks[np.argsort(weights, kind="stable")] = np.arange(1, len(weights) + 1)
    size = (graph.count, graph.count)
    tree = minimum_spanning_tree(coo_matrix((ranks, (graph.first, graph.second)), size).tocsr()).tocoo()
    order = np.argsort(tree.data)
    chosen = np.sort(weights, kind="stable")[tree.data[order].astype(np.int64) - 1]
    return list(zip(tree.row[order].tolist(), tree.col[order].tolist(), chosen.tolist(), strict=True))


def _thin(points: np.ndarray) -> Voxels:
    """Group points into at most `MAX_POINTS` cells."""
    low, size = points.min(0), point_spacing(points)
    while True:
        cells = quantise(np.floor((points - low) / size))
        if len(cells.coords) <= MAX_POINTS:
            return cells
        size *= 1.05 * np.sqrt(len(cells.coords) / MAX_POINTS)  # since points lie on surfaces


def _means(values: np.ndarray, cell: np.ndarray) -> np.ndarray:
    """Return the mean of the rows of each cell."""
    counts = np.bincount(cell)
    return np.stack([np.bincount(cell, column) / counts for column in np.asarray(values, np.float64).T], 1)


def _normals(points: np.ndarray, index: np.ndarray) -> np.ndarray:
    """Return unit normals, N x 3: the direction in which the points of each neighbourhood (N x n rows) vary least."""
    normals = np.empty_like(points)
    for start in range(0, len(points), POINTS_AT_ONCE):
        near = points[index[start : start + POINTS_AT_ONCE]]
        near -= near.mean(1, keepdims=True)
        normals[start : start + POINTS_AT_ONCE] = np.linalg.eigh(np.einsum("nki,nkj->nij", near, near))[1][:, :, 0]
    return normals
