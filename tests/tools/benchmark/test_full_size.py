import sys
from pathlib import Path

import pytest

from tools.benchmark import full_size
from xmask3d.build import build_model
from xmask3d.build_untrained import trainable_values
from xmask3d.checkpoints.published import Layout
from xmask3d.config import Config, load_config
from xmask3d.errors import UserError
from xmask3d.splits import load_benchmark


@pytest.fixture
def small(tiny: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The tiny network in place of the published one; the real one takes minutes and 8 GiB."""
    model = build_model(load_config(tiny)).model
    monkeypatch.setattr(full_size, "build_untrained", lambda config, device: build_model(config).model)
    monkeypatch.setattr(full_size, "TENSORS", len(Layout.of(model).shapes))
    monkeypatch.setattr(full_size, "TRAINABLE", trainable_values(model))
    return tiny


def test_a_view_of_a_room_is_made(tiny: Path) -> None:
    sample = full_size.synthetic_sample(load_benchmark("scannet20/B15N4"), Config())
    # A third of the pixels inside the border of ten.
    assert len(sample.points) == pytest.approx(220 * 300 / 3, rel=0.01)
    assert sample.image.shape == (3, 512, 512) and len(sample.voxel_coords) > 10_000
    assert sample.labels is not None and len(sample.labels.unique()) > 5


def test_one_step_and_its_report(
    small: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(sys, "argv", ["full_size", str(small), "data.voxel_size=0.05", "--threads", "1"])
    assert full_size.main() == 0
    printed = capsys.readouterr().out
    assert f"network: {full_size.TENSORS} checkpoint tensors" in printed and "peak memory" in printed
    monkeypatch.setattr(
        sys, "argv", ["full_size", str(small), "data.voxel_size=0.05", "--threads", "1", "--limit", "0.01"]
    )
    assert full_size.main() == 1
    assert "more than 0.01 GiB" in capsys.readouterr().err


def test_another_network_is_refused(small: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(full_size, "TRAINABLE", 82_946_562)
    with pytest.raises(UserError, match=r"the published one .* and 82,946,562"):
        full_size.check_full_size(load_config(small))
