"""Memory of a training step, computed from tensors without values."""

import gc
from collections import Counter
from pathlib import Path

import pytest
import torch

from tools.studies.memory import BACKWARD, OTHERS, WEIGHTS, LiveTensors, peak_of_step, table
from xmask3d.build import build_model
from xmask3d.config import load_config


def test_tensors_are_followed_to_their_end() -> None:
    live = LiveTensors("first")
    one = torch.zeros(100, device="meta")
    live.watch(one)
    live.watch(one[10:])  # the same memory
    with live.running("second"):
        live.watch(torch.zeros(50, dtype=torch.float64))  # freed at once
        gc.collect()
        live.watch(torch.zeros(25))
    assert live.peak == Counter(first=400, second=400) and live.part == "first"
    del one
    gc.collect()
    assert live.sizes.total() == 0


@pytest.mark.slow
def test_views_cost_alike_and_checkpointing_less(tiny: Path) -> None:
    def peak(views: int, *overrides: str) -> Counter[str]:
        config = load_config(tiny, ["data.voxel_size=0.05", *overrides])
        return peak_of_step(config, views, build_model(config).model.to("meta"))

    one, two, three = peak(1), peak(2), peak(3)
    assert three.total() - two.total() == pytest.approx(two.total() - one.total(), rel=0.1)
    assert one[WEIGHTS] == pytest.approx(two[WEIGHTS], rel=0.5) and one[OTHERS] > 0
    assert peak(2, "model.checkpointing=true").total() <= two.total()
    lines = table({1: one, 2: two})
    assert lines[0] == "| GiB at the peak, computed | 1 views | 2 views |" and lines[-1].startswith("| together |")
    assert any(line.startswith(f"| {BACKWARD} |") for line in lines)
