"""Regions of a cloud: pure where surfaces or colours differ, the same at every call, at most as many as asked for."""

import numpy as np
import pytest

from xmask3d.geometry import superpoints as module
from xmask3d.geometry.superpoints import SurfaceGraph, segment_graph, superpoints, surface_graph


def corner(rng: np.random.Generator, count: int = 3000, noise: float = 0.0) -> tuple[np.ndarray, np.ndarray]:
    """Floor and wall at right angles, 2 m x 2 m each, and which of the two each point is on."""
    flat = rng.random((count, 2)) * 2
    wall = rng.random(count) < 0.5
    points = np.where(wall[:, None], np.c_[np.zeros(count), flat], np.c_[flat, np.zeros(count)])
    return points + rng.normal(0, noise, points.shape), wall.astype(int)


def purity(region: np.ndarray, truth: np.ndarray) -> float:
    """Share of points whose region's most frequent truth is theirs."""
    table = np.zeros((region.max() + 1, truth.max() + 1), int)
    np.add.at(table, (region, truth), 1)
    return table.max(1).sum() / len(region)


@pytest.mark.parametrize("noise, least", [(0.0, 0.98), (0.005, 0.95), (0.01, 0.93)])
def test_regions_keep_surfaces_apart(noise: float, least: float) -> None:
    points, wall = corner(np.random.default_rng(1), noise=noise)
    for region in superpoints(points):
        assert purity(region, wall) > least
        assert region.max() + 1 < 60  # points are joined at all
        assert np.bincount(region).min() >= 20


def test_regions_keep_colours_apart() -> None:
    rng = np.random.default_rng(2)
    points = np.c_[rng.random((4000, 2)) * 2, np.zeros(4000)]
    red = (points[:, 0] > 1).astype(int)
    colors = np.where(red[:, None], [0.8, 0.1, 0.1], [0.1, 0.1, 0.8]) + rng.normal(0, 0.02, (4000, 3))
    divisions = superpoints(points, colors)
    assert purity(divisions[0], red) > 0.99 and purity(divisions[2], red) > 0.97
    assert divisions[1].max() == 0  # of normals alone: one plane


def test_regions_are_the_same_at_every_call_and_numbered_by_their_first_points() -> None:
    points, _ = corner(np.random.default_rng(3), 1500, 0.01)
    for one, other in zip(superpoints(points), superpoints(points), strict=True):
        np.testing.assert_array_equal(one, other)
        _, firsts = np.unique(one, return_index=True)
        assert (np.diff(firsts) > 0).all() and one[0] == 0


def test_map_coordinates_do_not_matter() -> None:
    points, _ = corner(np.random.default_rng(4), 1500)
    far = points + [400_000.0, 5_000_000.0, 100.0]
    near = surface_graph(points)
    away = surface_graph(far)
    shared = np.intersect1d(near.first * 1500 + near.second, away.first * 1500 + away.second)
    assert len(shared) > 0.99 * len(near.first)
    assert abs(np.median(near.bend) - np.median(away.bend)) < 1e-6


def test_a_chain_is_divided_at_its_heavy_edge() -> None:
    first = np.arange(9)
    weights = np.where(first == 4, 5.0, 0.1)
    graph = SurfaceGraph(first, first + 1, weights, weights, 10)
    np.testing.assert_array_equal(segment_graph(graph, weights, 1.0, smallest=1), [0] * 5 + [1] * 5)
    np.testing.assert_array_equal(segment_graph(graph, weights, 1.0, smallest=6), [0] * 10)
    np.testing.assert_array_equal(segment_graph(graph, weights, 100.0, smallest=1), [0] * 10)


@pytest.mark.parametrize("count", [0, 1, 2, 5])
def test_few_points(count: int) -> None:
    assert all(len(region) == count for region in superpoints(np.zeros((count, 3))))


def test_points_in_one_place() -> None:
    points = np.repeat(np.random.default_rng(5).random((40, 3)), 30, axis=0)
    assert all(len(region) == 1200 for region in superpoints(points))


def test_large_clouds_are_thinned_first(monkeypatch: pytest.MonkeyPatch) -> None:
    points, wall = corner(np.random.default_rng(6), 6000)
    monkeypatch.setattr(module, "MAX_POINTS", 2000)
    for region in superpoints(points, np.zeros((6000, 3))):
        assert len(region) == 6000 and purity(region, wall) > 0.97
