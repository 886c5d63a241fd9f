import numpy as np
import pytest

from xmask3d.geometry.nearest import nearest


@pytest.mark.parametrize("kind", [np.float32, np.float64])
def test_nearest_is_what_all_distances_say(kind: type) -> None:
    rng = np.random.default_rng(0)
    points, queries = rng.random((200, 3)).astype(kind), (3 * rng.random((50, 3))).astype(kind)
    distances = np.linalg.norm(points[None].astype(float) - queries[:, None].astype(float), axis=-1)
    np.testing.assert_array_equal(nearest(points, queries), distances.argmin(1))


def test_one_point_is_nearest_to_all() -> None:
    assert nearest(np.zeros((1, 3)), np.arange(6.0).reshape(2, 3)).tolist() == [0, 0]
