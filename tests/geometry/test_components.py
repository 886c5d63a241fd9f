"""Connected parts of a cloud, and which of them touch."""

import numpy as np

from xmask3d.geometry.components import components, renumber, touching

LINE = np.stack([np.arange(20) * 0.05, np.zeros(20), np.zeros(20)], 1) + 1e-4
GROUPS = np.repeat([0, 1, -1, 1], 5)


def test_components_do_not_join_classes() -> None:
    parts = components(LINE, GROUPS, 0.05)
    assert (parts[10:15] == -1).all()
    assert len(np.unique(parts[:5])) == len(np.unique(parts[5:10])) == len(np.unique(parts[15:])) == 1
    assert len({parts[0], parts[5], parts[15]}) == 3  # class 1 is broken by what lies between


def test_neighbours_of_other_groups_touch() -> None:
    parts = components(LINE, GROUPS, 0.05)
    assert touching(LINE, parts, 0.05).tolist() == [sorted((int(parts[4]), int(parts[5])))]
    assert touching(LINE, GROUPS, 0.3).tolist() == [[0, 1]]
    assert touching(LINE[:3], GROUPS[:3], 0.05).shape == (0, 2)
    assert touching(LINE, np.full(20, -1), 0.05).shape == (0, 2)


def test_parts_are_numbered_by_size() -> None:
    np.testing.assert_array_equal(renumber(np.array([7, 7, 2, 3, 3, 3, -1]), 2), [1, 1, -1, 0, 0, 0, -1])
