"""Study of noise."""

from pathlib import Path

import numpy as np

from tools.studies.noise import LEVELS, Noise, NoisyReader, score_with_noise
from xmask3d.build import build_reader
from xmask3d.config import load_config
from xmask3d.splits import load_benchmark


def test_noise_is_as_large_as_named_and_always_the_same(tiny: Path) -> None:
    config = load_config(tiny)
    reader = build_reader(config, load_benchmark(config.benchmark), "val")
    name = reader.scene_names[0]
    clean, noisy = reader.read_scene(name), NoisyReader(reader, Noise(0.02, 0.1)).read_scene(name)
    assert np.isclose(np.std(noisy.points - clean.points), 0.02, rtol=0.05)
    inside = np.abs(clean.colors) < 0.2  # others are cut at black and white
    assert np.isclose(np.std((noisy.colors - clean.colors)[inside]), 0.2, rtol=0.1)
    np.testing.assert_array_equal(NoisyReader(reader, Noise(0.02, 0.1)).read_scene(name).points, noisy.points)
    np.testing.assert_array_equal(NoisyReader(reader, Noise()).read_scene(name).points, clean.points)


def test_every_level_is_scored_with_and_without_regions(tiny: Path, finished: Path) -> None:
    config = load_config(tiny, ["evaluate.votes=soft", "evaluate.gate=soft"])
    rows = list(score_with_noise(config, finished / "checkpoints" / "step-00000008.pt", scenes=1))
    assert [row[:2] for row in rows] == [(str(noise), kind) for noise in LEVELS for kind in ("none", "votes", "gate")]
    assert all(0 <= value <= 1 for row in rows for value in row[2])
