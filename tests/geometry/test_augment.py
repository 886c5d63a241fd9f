import numpy as np

from xmask3d.geometry.augment import elastic_distortion, jitter_colors, random_flips


def cloud(count=2000):
    return np.random.default_rng(3).uniform(-2, 2, (count, 3)).astype(np.float32)


def test_elastic_distortion_is_smooth_and_seeded():
    points = cloud()
    bent = elastic_distortion(points, np.random.default_rng(0), probability=1.0)
    again = elastic_distortion(points, np.random.default_rng(0), probability=1.0)
    np.testing.assert_array_equal(bent, again)
    shift = np.linalg.norm(bent - points, axis=1)
    assert 0.01 < shift.mean() < 1.0
    near = points + np.float32(1e-3)
    moved = elastic_distortion(np.concatenate([points, near]), np.random.default_rng(0), probability=1.0)
    apart = np.linalg.norm(moved[: len(points)] - moved[len(points) :], axis=1)
    assert apart.max() < 0.02
    np.testing.assert_array_equal(elastic_distortion(points, np.random.default_rng(0), probability=0.0), points)


def test_flips_keep_distances():
    points = cloud(50)
    seen = set()
    for seed in range(30):
        flipped = random_flips(points, np.random.default_rng(seed), probability=1.0)
        np.testing.assert_array_equal(flipped[:, 2], points[:, 2])
        steps, before = (np.linalg.norm(np.diff(p, axis=0), axis=1) for p in (flipped, points))
        np.testing.assert_allclose(steps, before, rtol=1e-4)
        seen.add(tuple(bool(np.any(flipped[:, axis] != points[:, axis])) for axis in (0, 1)))
    assert len(seen) == 4


def test_colors_stay_in_range():
    colors = np.random.default_rng(0).uniform(-1, 1, (500, 3)).astype(np.float32)
    for seed in range(20):
        changed = jitter_colors(colors, np.random.default_rng(seed))
        assert changed.dtype == np.float32 and changed.min() >= -1 and changed.max() <= 1
    none = jitter_colors(colors, np.random.default_rng(0), contrast=0, probability=0)
    np.testing.assert_allclose(none, colors, atol=1e-6)


def test_contrast_stretches_to_the_full_range():
    colors = np.linspace(-0.2, 0.3, 90, dtype=np.float32).reshape(30, 3)
    spans = [
        np.ptp(jitter_colors(colors, np.random.default_rng(seed), contrast=1, probability=0)) for seed in range(20)
    ]
    assert max(spans) > 1.5 and min(spans) >= np.ptp(colors) - 1e-6
