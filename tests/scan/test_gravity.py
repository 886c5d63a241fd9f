"""Up of clouds without cameras: furniture says which end of a room is its floor."""

import numpy as np
import pytest

from xmask3d.scan.gravity import NAMES, bottom_weight, find_up, rotation_to_z


def furnished_room(ceiling: bool) -> np.ndarray:
    """Points of a floor, four walls, a table, a bed and perhaps a ceiling, z up."""
    rng = np.random.default_rng(0)

    def box(count: int, low: tuple, high: tuple) -> np.ndarray:
        return rng.uniform(low, high, (count, 3))

    walls = [box(3000, (0, y, 0), (5, y, 2.4)) for y in (0, 4)] + [box(3000, (x, 0, 0), (x, 4, 2.4)) for x in (0, 5)]
    furniture = [box(1500, (2, 1, 0.75), (3.5, 2, 0.75)), box(2500, (0.2, 2, 0.5), (2, 3.8, 0.5))]
    bare = [box(6000, (0, 0, 2.4), (5, 4, 2.4))] if ceiling else []
    return np.concatenate([box(4500, (0, 0, 0), (5, 4, 0)), *walls, *furniture, *bare])


@pytest.mark.parametrize("ceiling", [True, False])
@pytest.mark.parametrize("name", NAMES)
def test_furniture_decides_which_end_is_up(name: str, ceiling: bool) -> None:
    axis = np.array(NAMES[name], float)
    found = find_up(furnished_room(ceiling) @ rotation_to_z(axis))
    np.testing.assert_allclose(found.up, axis, atol=0.03)
    assert "unsure" not in found.words


def test_an_empty_box_is_unsure() -> None:
    points = np.random.default_rng(0).uniform(0, 1, (20_000, 3)) * (5, 4, 2.4)
    side = np.arange(len(points)) % 3
    for axis, size in enumerate((5, 4, 2.4)):
        rows = side == axis
        points[rows, axis] = np.rint(points[rows, axis] / size) * size
    assert abs(bottom_weight(points, np.array([0.0, 0, 1]))) < 0.05
    found = find_up(points)
    assert found.up[2] == 1 and "unsure whether it is upside down (--up turns it)" in found.words
