import json
import zlib
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn

from tests.parity.filler import fill_module, fill_tensor, random_normal, random_uniform

CHECKS = json.loads((Path(__file__).parents[1] / "golden" / "filler_check.json").read_text())


@pytest.mark.parametrize("check", CHECKS, ids=[check["name"] for check in CHECKS])
def test_values_match_the_published_ones(check: dict) -> None:
    value = fill_tensor(check["name"], check["shape"])
    assert value.dtype == np.float32
    assert value.shape == tuple(check["shape"])
    np.testing.assert_allclose(value.reshape(-1)[:4], check["first4"][: value.size], rtol=1e-6)
    np.testing.assert_allclose(np.linalg.norm(value.astype(np.float64)), check["l2"], rtol=1e-6)


def test_module_takes_renamed_parameters_and_statistics() -> None:
    module = nn.Sequential(nn.Linear(3, 2), nn.BatchNorm1d(2)).double()
    fill_module(module, "head.", lambda name: None if name == "0.bias" else name.replace("1.", "norm.", 1))
    expected = torch.from_numpy(fill_tensor("head.0.weight", (2, 3))).double()
    assert torch.equal(module[0].weight, expected)
    assert torch.equal(module[1].running_var, torch.from_numpy(fill_tensor("head.norm.running_var", (2,))).double())
    assert (module[1].running_var > 0).all()
    assert module[0].bias.abs().max() < 1  # Linear's own start, bounded by 1/sqrt(3)
    assert not torch.equal(module[0].bias, torch.from_numpy(fill_tensor("head.0.bias", (2,))).double())


def test_random_inputs_are_seeded_by_their_name() -> None:
    generator = np.random.Generator(np.random.PCG64(zlib.crc32(b"some.input")))
    np.testing.assert_array_equal(random_normal("some.input", (5,), 0.5), generator.standard_normal(5, np.float32) / 2)
    uniform = random_uniform("some.input", (1000,))
    assert uniform.min() >= 0 and uniform.max() < 1
