"""Objects from labels, votes and masks of views."""

import numpy as np
import pytest

from xmask3d.inference.instances import FEW, find_objects, split_by_mask

TABLE, DESK, WALL = 0, 1, 2


def bar(start: float, length: float) -> np.ndarray:
    """Points of a flat bar, 5 cm apart and 20 cm deep."""
    x, y = np.meshgrid(np.arange(start, start + length, 0.05), np.arange(4) * 0.05)
    return np.stack([x.ravel(), y.ravel(), np.zeros(x.size)], 1) + 1e-3


# A table, whose last third was labelled a desk; another table 30 cm on.
PARTS = [bar(0, 2), bar(2, 1), bar(3.3, 2)]
POINTS = np.concatenate(PARTS)
OF_PART = np.repeat([0, 1, 2], [len(part) for part in PARTS])
LABELS = np.array([TABLE, DESK, TABLE])[OF_PART]
DOUBTFUL = np.array([[6, 4, 0], [4, 6, 0], [9, 1, 0]], float)[OF_PART]
SURE = np.array([[9, 1, 0], [1, 9, 0], [9, 1, 0]], float)[OF_PART]
CONFIDENCE = np.where(OF_PART == 2, 0.5, 0.8)
WHOLE = [np.flatnonzero(OF_PART < 2), np.flatnonzero(OF_PART == 2)]  # a view whose mask holds the table
DIVIDED = [np.flatnonzero(part == OF_PART) for part in range(3)]


def test_parts_that_views_confuse_and_masks_hold_are_one_object() -> None:
    found = find_objects(POINTS, LABELS, DOUBTFUL, CONFIDENCE, WHOLE)
    np.testing.assert_array_equal(found.of_point, np.where(OF_PART < 2, 0, 1))
    assert found.classes.tolist() == [TABLE, TABLE]  # the class of most points
    sizes = np.bincount(found.of_point)
    assert found.confidences == pytest.approx((np.array([0.8, 0.5]) * sizes / (sizes + FEW)).tolist())


@pytest.mark.parametrize(
    ("votes", "masks", "structure"),
    [(SURE, WHOLE, ()), (DOUBTFUL, DIVIDED, ()), (DOUBTFUL, [], ()), (DOUBTFUL, WHOLE, (DESK,))],
)
def test_parts_stay_apart_without_either_sign(votes: np.ndarray, masks: list, structure: tuple) -> None:
    found = find_objects(POINTS, LABELS, votes, CONFIDENCE, masks, structure)
    assert found.classes.tolist() == [TABLE, TABLE, DESK]
    np.testing.assert_array_equal(found.of_point, np.array([0, 2, 1])[OF_PART])


def test_nothing_labelled_has_no_objects() -> None:
    found = find_objects(POINTS, np.full(len(POINTS), -1), DOUBTFUL, CONFIDENCE, WHOLE)
    assert (found.of_point == -1).all() and not len(found.classes) and not found.confidences


def test_masks_of_views_are_collected_by_number() -> None:
    index, mask = np.arange(200)[::-1], np.repeat([3, -1, 1, 0], [80, 40, 60, 20])
    small, large = split_by_mask(index, mask)  # 20 points are too few
    assert small.tolist() == index[120:180].tolist() and large.tolist() == index[:80].tolist()
    assert split_by_mask(index[:0], mask[:0]) == []
