"""Simulated clicks go to the largest wrong place and make labels better."""

import numpy as np

from tests.segment.test_corrections import NAMES, labels, scan
from tests.segment.test_result_files import result_of
from tools.studies.clicks import click_through, first, mean_iou, next_click
from xmask3d.splits import load_benchmark


def test_the_largest_wrong_place_is_clicked_in_its_middle() -> None:
    points = np.stack([np.arange(60) * 0.05, np.zeros(60), np.zeros(60)], 1)
    truth, found = np.zeros(60, int), np.zeros(60, int)
    found[10:31], found[40:45], truth[50:] = 1, 1, 2
    assert next_click(points, found, truth, 2) == 20
    assert next_click(points, truth, truth, 2) is None


def test_clicks_make_labels_better() -> None:
    features, benchmark = scan(), load_benchmark("scannet20/B15N4")
    names = list(benchmark.class_names)
    desk, chair, wall = (names.index(name) for name in ("desk", "chair", "wall"))
    found = np.array([wall, desk])[labels()]
    truth = np.where(np.arange(60) >= 40, chair, found)
    result = result_of(NAMES, features=features, points=features.points, labels=found, names=names)
    corrections, steps, seconds = click_through(result, truth, 5)
    assert len(corrections) == 1 and steps[-1].tolist() == truth.tolist() and seconds < 1
    assert mean_iou(benchmark, [steps[-1]], [truth]) == 100
    np.testing.assert_allclose(mean_iou(benchmark, [steps[0]], [truth]), 50)
    assert not len(first(corrections, 0))
