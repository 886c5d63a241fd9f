"""Depth of a structured-light camera: each fault is there, and is gone when it is switched off."""

import numpy as np
import pytest

from tests.rooms.scanned.films import FOCAL, SHAPE, film, halves
from xmask3d.rooms.scanned.film import Film
from xmask3d.rooms.scanned.kinect import BASELINE, sense_depth
from xmask3d.rooms.scanned.settings import ScanSettings

PERFECT = ScanSettings().changed(
    dict.fromkeys(
        ("disparity_noise", "disparity_step", "flying", "edge_jitter", "dark_loss", "shine_loss", "glass_loss",
         "slant_loss", "shadow", "warp"), 0
    ), "test"
)  # fmt: skip


def _sensed(seen: Film, **changes: object) -> np.ndarray:
    return sense_depth(seen, FOCAL, PERFECT.changed(changes, "test"), np.random.default_rng(0)).astype(int)


def test_a_perfect_camera_measures_the_truth() -> None:
    assert (_sensed(film()) == 2000).all()


def test_depth_is_quantised_in_steps_that_grow_with_the_square_of_distance() -> None:
    ramp = np.broadcast_to(np.linspace(1.9, 2.1, SHAPE[1], dtype=np.float32), SHAPE).copy()
    steps = np.diff(np.unique(_sensed(film(depth=ramp), disparity_step=0.0625)))
    expected = 2.0**2 / (FOCAL * BASELINE) * 0.0625 * 1000
    assert abs(np.median(steps) - expected) < 2
    far = np.diff(np.unique(_sensed(film(depth=ramp * 2), disparity_step=0.0625)))
    assert 3.5 < np.median(far) / np.median(steps) < 4.5


def test_noise_grows_with_the_square_of_distance() -> None:
    near = _sensed(film(depth=np.full(SHAPE, 1.0, np.float32)), disparity_noise=0.03).std()
    far = _sensed(film(depth=np.full(SHAPE, 4.0, np.float32)), disparity_noise=0.03).std()
    assert 12 < far / near < 20
    assert abs(near - 1000 * 0.03 / (FOCAL * BASELINE)) < 1.5


def test_edges_fly_between_the_surfaces() -> None:
    seen = film(depth=halves(1.0, 3.0))
    assert set(np.unique(_sensed(seen))) == {1000, 3000}
    measured = _sensed(seen, flying=1.0)
    between = (measured > 1050) & (measured < 2950)
    assert 0.5 < between.sum() / SHAPE[0] < 2
    assert between[:, SHAPE[1] // 2 - 3 : SHAPE[1] // 2 + 3].sum() == between.sum()
    ragged = _sensed(seen, edge_jitter=1.0)
    assert (ragged != _sensed(seen)).sum() > SHAPE[0] / 2


def test_the_projectors_shadow_lies_right_of_near_things() -> None:
    lost = _sensed(film(depth=halves(1.0, 3.0)), shadow=1.0)[:, 4:-8] == 0
    expected = FOCAL * BASELINE * (1 - 1 / 3)
    assert abs(lost[4:].sum(1).mean() - expected) < 2
    other = _sensed(film(depth=halves(3.0, 1.0)), shadow=1.0)[4:, 4:-8] == 0
    assert other.sum() == 0


@pytest.mark.parametrize(
    ("name", "array", "value", "least"),
    [
        ("dark_loss", "albedo", 0.02, 0.5),
        ("shine_loss", "shine", 1.0, 0.2),
        ("slant_loss", "facing", 0.08, 0.9),
        ("glass_loss", "outside", True, 0.9),
    ],
)
def test_surfaces_without_depth(name: str, array: str, value: float, least: float) -> None:
    normal = getattr(film(), array)[0, 0]
    seen = film(**{array: halves(float(normal), float(value)).astype(getattr(film(), array).dtype)})
    lost = _sensed(seen, **{name: 1.0}) == 0
    half = SHAPE[1] // 2
    assert lost[:, half:].mean() > least and lost[:, :half].mean() < 0.03
    assert (_sensed(seen) == 2000).all()


def test_depth_beyond_the_reach_is_not_measured() -> None:
    assert (_sensed(film(depth=halves(0.3, 7.0))) == 0).all()
    assert (_sensed(film(depth=halves(0.3, 7.0)), reach=[0.1, 8]) > 0).all()
    assert (_sensed(film(depth=np.zeros(SHAPE, np.float32))) == 0).all()
