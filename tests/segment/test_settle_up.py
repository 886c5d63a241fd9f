"""Up that geometry leaves unsure: the guess of which the network is surer, unless geometry speaks against it."""

import numpy as np
import pytest

from xmask3d.data.scene import Scene
from xmask3d.scan.scan import Scan
from xmask3d.segment.settle_up import settle_up


def scan_of(probability: float) -> Scan:
    points = np.random.default_rng(0).uniform((0, 0, 0), (4, 3, 1), (5000, 3)).astype(np.float32)
    scene = Scene("a", points.copy(), np.zeros_like(points), None, [])
    guesses = np.array([[0, 0, 1, np.log(probability)], [0, 1, 0, np.log(1 - probability)]])
    return Scan("a", "cloud", scene, points, None, lambda name: None, guesses=guesses)


def flat(scan: Scan) -> float:
    """Stand in for a network that is surer of rooms 3 m high."""
    assert len(scan.scene.points) < 5000 and not scan.scene.view_names
    return 0.9 if np.ptp(scan.scene.points[:, 2]) > 2 else 0.8


@pytest.mark.parametrize(("probability", "turned"), [(0.6, True), (0.79, False)])
def test_the_network_breaks_a_tie(probability: float, turned: bool) -> None:
    scan = scan_of(probability)
    settle_up(scan, flat)
    assert (np.ptp(scan.scene.points[:, 2]) > 2) == turned
    np.testing.assert_allclose(scan.scene.points, scan.points @ scan.rotation.T, atol=1e-6)
    assert scan.lines == (["warning: the model knows more with y up; turned so (--up, if that is wrong)"] if turned
                          else ["the model's confidence leaves z up"])  # fmt: skip
    assert not len(scan.guesses)


def test_a_sure_scan_is_not_asked_about() -> None:
    scan = scan_of(0.6)
    scan.guesses = scan.guesses[:0]
    settle_up(scan, lambda part: 1 / 0)
    assert not scan.lines
