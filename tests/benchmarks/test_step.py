from pathlib import Path

import pytest
import torch

from tests.helpers.tiny import write_config
from xmask3d.benchmarks.case import Case, Request
from xmask3d.benchmarks.step import cases, prepare


def test_the_plain_step_has_the_same_losses(tmp_path: Path) -> None:
    config = write_config(tmp_path)
    losses = {}
    for case in cases(Request(against=("plain",), views=(2,), points=(8000,))):
        job = prepare(case, config)
        assert job.operations > 0
        losses[case.contender] = job.run()
    ours = losses["xmask3d-encoding"]
    assert ours["total"] > 0 and "mask_regularisation" in ours
    for name, value in ours.items():
        torch.testing.assert_close(losses["plain"][name], value, rtol=2e-3, atol=1e-3)
        # Encodings are kept in half precision.
        assert float(losses["xmask3d"][name]) == pytest.approx(float(value), rel=0.05, abs=0.05)


def test_steps_of_several_sizes() -> None:
    listed: list[Case] = cases(Request(views=(1, 4)))
    assert [case.name for case in listed[::2]] == [
        "training step, 1 views of 150k points",
        "training step, 4 views of 150k points",
    ]
