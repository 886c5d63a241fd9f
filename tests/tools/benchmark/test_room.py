"""Both ways of filming a room give the same pictures and points."""

import numpy as np

from tools.benchmark.case import Request
from tools.benchmark.room import cases, prepare


def test_both_ways_give_the_same() -> None:
    listed = cases(Request(against=("plain",), views=(2,), threads=4))
    assert [(case.name, case.contender, case.threads) for case in listed] == [
        ("room, 2 views of 320x240", name, 1) for name in ("xmask3d", "plain")
    ]
    (frames, seen, points), (plain_frames, plain_seen, plain_points) = (prepare(case).run() for case in listed)
    assert len(frames) == 2 and len(seen) == 4 and len(points) > 5000
    for one, other in zip(frames, plain_frames, strict=True):
        for name in ("color", "depth", "instance", "label"):
            np.testing.assert_array_equal(getattr(one, name), getattr(other, name))
    for one, other in zip(seen, plain_seen, strict=True):
        np.testing.assert_array_equal(one, other)
    np.testing.assert_allclose(points, plain_points, rtol=1e-12)
