"""The views of a validation are shared by whole scenes."""

import pytest

from xmask3d.engine.validate import views_of_process


@pytest.mark.parametrize("each, processes", [(1, 1), (3, 2), (2, 4), (3, 9)])
def test_every_view_falls_to_one_process_and_every_scene_too(each: int, processes: int) -> None:
    shares = [views_of_process(7 * each, each, process, processes) for process in range(processes)]
    assert sorted(index for share in shares for index in share) == list(range(7 * each))
    scenes = [{index // each for index in share} for share in shares]
    assert sum(map(len, scenes)) == 7 and max(map(len, scenes)) - min(map(len, scenes)) <= 1
