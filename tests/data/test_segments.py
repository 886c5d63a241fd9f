"""Segments beside a cloud."""

import json
from pathlib import Path

import numpy as np
import pytest

from xmask3d.data.scene import Scene
from xmask3d.data.segments import read_segments
from xmask3d.errors import UserError
from xmask3d.inference.region_votes import divide


def test_segments_are_found_by_the_name_of_the_cloud(tmp_path: Path) -> None:
    cloud, file = tmp_path / "a[1]_vh_clean_2.ply", tmp_path / "a[1]_vh_clean_2.0.010000.segs.json"
    assert read_segments(cloud, 4) is None
    file.write_text(json.dumps({"segIndices": [907, 3, 3, 907]}))
    found = read_segments(cloud, 4)
    np.testing.assert_array_equal(found, [1, 0, 0, 1])
    assert read_segments(tmp_path / "b_vh_clean_2.ply", 4) is None
    assert read_segments(cloud, 5) is None  # of another cloud
    file.write_text(json.dumps({"segIndices": [1, 2, 3, "four"]}))
    assert read_segments(cloud, 4) is None
    file.write_text("{")
    with pytest.raises(UserError, match=r"segs\.json"):
        read_segments(cloud, 4)


def test_segments_that_came_with_a_scene_are_its_regions() -> None:
    points = np.random.default_rng(0).random((60, 3)).astype(np.float32)
    segments = np.arange(60) // 20
    (division,) = divide(Scene("a", points, points * 0, None, segments=segments))
    np.testing.assert_array_equal(division, segments)
    assert len(divide(Scene("a", points, points * 0, None))) > 1
