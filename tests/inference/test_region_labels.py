"""Labels of regions, in plain NumPy."""

import numpy as np

from xmask3d.inference.region_labels import calibrated, common_parts, label_regions


def test_parts_are_what_no_division_divides() -> None:
    first, second = np.array([0, 0, 1, 1, 1]), np.array([0, 1, 1, 1, 0])
    part, regions = common_parts([first, second])
    assert len(regions) == 4 and part[2] == part[3] and len(np.unique(part)) == 4
    np.testing.assert_array_equal(regions[part], np.stack([first, second], 1))


def test_votes_of_parts_give_the_labels_of_points() -> None:
    rng = np.random.default_rng(0)
    divisions, votes = [rng.integers(0, 5, 200), rng.integers(0, 7, 200)], rng.random((200, 3))
    labels, shares = label_regions(votes, divisions, np.zeros(3, bool))
    part, regions = common_parts(divisions)
    sums = np.stack([np.bincount(part, column) for column in votes.T], 1)
    of_parts, shares_of_parts = label_regions(sums, list(regions.T), np.zeros(3, bool))
    np.testing.assert_array_equal(of_parts[part], labels)
    np.testing.assert_allclose(shares_of_parts[part], shares, rtol=1e-5)


def test_a_temperature_makes_shares_less_sure_and_keeps_their_order() -> None:
    shares = np.array([[0.8, 0.2], [0.5, 0.5], [0, 0], [1e-30, 0]])
    np.testing.assert_allclose(calibrated(shares, 1), [0.8, 0.5, 0, 1e-30])
    np.testing.assert_allclose(calibrated(shares, 2), [2 / 3, 0.5, 0, 1])
    np.testing.assert_allclose(calibrated(shares, 0.5), [16 / 17, 0.5, 0, 1])
