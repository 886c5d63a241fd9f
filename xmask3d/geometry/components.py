"""Connected parts of a point cloud."""

import numpy as np
from scipy import sparse
from scipy.sparse.csgraph import connected_components
from scipy.spatial import cKDTree

from xmask3d.geometry.voxels import quantise

NEIGHBOUR = 1.8  # largest distance between centres of neighbouring cells, which may touch at a corner


def components(points: np.ndarray, groups: np.ndarray, spacing: float) -> np.ndarray:
    """Find the connected parts of each group: voxels of a group that touch, even at corners, are one part.

    Args:
        points: n x 3 metres.
        groups: n int, group of each point; -1 for points to ignore.
        spacing: edge of the voxels in metres.

    Returns:
        n int64 part numbers from 0, -1 for ignored points.
    """
    parts = np.full(len(points), -1, np.int64)
    used, nodes, node_of, pairs = _neighbours(points, groups, spacing)
    if not len(used):
        return parts
    pairs = pairs[nodes[pairs[:, 0]] == nodes[pairs[:, 1]]]
    graph = sparse.coo_matrix((np.ones(len(pairs)), (pairs[:, 0], pairs[:, 1])), shape=(len(nodes), len(nodes)))
    _, part_of = connected_components(graph, directed=False)
    parts[used] = part_of[node_of]
    return parts


def touching(points: np.ndarray, groups: np.ndarray, spacing: float) -> np.ndarray:
    """Find the pairs of different groups with voxels that touch or are shared, E x 2, the lower number first.

    Args:
        points: n x 3 metres.
        groups: n int, group of each point; -1 for points to ignore.
        spacing: edge of the voxels in metres.
    """
    _, nodes, _, pairs = _neighbours(points, groups, spacing)
    ends = nodes[pairs]
    return np.unique(np.sort(ends[ends[:, 0] != ends[:, 1]], axis=1), axis=0)


def _neighbours(
    points: np.ndarray, groups: np.ndarray, spacing: float
) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    """Return the points in use, the group of each node (pair of voxel and group), each point's node, and neighbours."""
    used = np.flatnonzero(groups >= 0)
    if not len(used):
        return used, np.zeros(0, np.int64), used, np.zeros((0, 2), np.int64)
    voxels = quantise(np.floor(points[used].astype(np.float64) / spacing))
    nodes, node_of = np.unique(np.stack([voxels.point_to_voxel, groups[used]], 1), axis=0, return_inverse=True)
    cells = voxels.coords[nodes[:, 0]].astype(np.float64)
    pairs = cKDTree(cells).query_pairs(NEIGHBOUR, output_type="ndarray")
    return used, nodes[:, 1], node_of.reshape(-1), pairs


def renumber(parts: np.ndarray, smallest: int) -> np.ndarray:
    """Renumber parts from 0 by falling size; parts with fewer than `smallest` points become -1."""
    names, inverse, counts = np.unique(parts, return_inverse=True, return_counts=True)
    keep = (names >= 0) & (counts >= smallest)
    order = np.argsort(-counts, kind="stable")
    order = order[keep[order]]
    new = np.full(len(names), -1, np.int64)
    new[order] = np.arange(len(order))
    return new[inverse.reshape(-1)]
