"""Study of reliability."""

from pathlib import Path

import numpy as np
import pytest

from tools.studies.reliability import Outcomes, fit, joined, look_at
from xmask3d.build import build_model
from xmask3d.config import load_config
from xmask3d.segment.segmenter import Segmenter
from xmask3d.splits import load_benchmark


def test_calibration_error_is_the_mean_distance_of_confidence_and_share_right() -> None:
    confidence = np.r_[np.full(60, 0.95), np.full(40, 0.55)]
    hits = np.r_[np.arange(60) < 45, np.arange(40) < 22]  # 75 % and 55 % right
    found = Outcomes(hits, confidence)
    np.testing.assert_allclose(list(found.rows()), [(0.4, 0.55, 0.55), (0.6, 0.95, 0.75)])
    assert found.calibration_error() == pytest.approx(0.6 * 0.2)
    assert Outcomes(hits, np.where(confidence > 0.9, 0.75, 0.55)).loss() < found.loss()


def test_the_temperature_of_least_loss_is_found(tiny: Path) -> None:
    config = load_config(tiny)
    assembly, benchmark = build_model(config), load_benchmark(config.benchmark)
    segmenter = Segmenter(assembly.model, assembly.clip_text, config, benchmark, "cpu")
    rooms = look_at(segmenter, sorted((config.data.root / "scannet_3d" / "val").glob("*.pth"))[:1])
    temperature = fit(rooms)
    assert joined(rooms, temperature).loss() <= min(joined(rooms, other).loss() for other in (0.4, 1.0, 4.0))
    sharp, blunt = (joined(rooms, other) for other in (0.5, 3.0))
    np.testing.assert_array_equal(sharp.hits, blunt.hits)  # labels do not depend on it
    assert sharp.confidence.mean() > blunt.confidence.mean()
