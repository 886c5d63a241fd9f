"""Groups, learning rates, averaged weights and signals."""

import math
import os
import signal

import pytest
import torch
from torch import nn

from xmask3d.build import make_optimizer
from xmask3d.engine.optim import AveragedWeights, learning_rate_factor, set_learning_rates
from xmask3d.engine.signals import StopSignals


class Model(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.point_encoder, self.binary_head = nn.Linear(2, 2), nn.Linear(2, 1)
        self.fuser, self.norm = nn.Linear(2, 2), nn.BatchNorm1d(2)
        self.frozen = nn.Parameter(torch.ones(1), requires_grad=False)


def test_two_groups_with_weight_decay_on_everything() -> None:
    model = Model()
    optimizer = make_optimizer(model, 1e-3, 1e-4, 0.01)
    three_d, others = optimizer.param_groups
    assert {id(p) for p in three_d["params"]} == {
        id(p) for n, p in model.named_parameters() if n[:5] in ("point", "binar")
    }
    assert len(others["params"]) == 4  # fuser and norm; the frozen one nowhere
    assert (three_d["lr"], others["lr"]) == (1e-3, 1e-4)
    assert three_d["weight_decay"] == others["weight_decay"] == 0.01
    assert (three_d["betas"], three_d["eps"]) == ((0.9, 0.999), 1e-8)


def test_cosine_as_published() -> None:
    total = 45_000
    assert learning_rate_factor(0, total) == 1
    for done in (1, 300, 22_500, 44_999):
        assert learning_rate_factor(done, total) == pytest.approx(
            0.5 * (1 + math.cos(math.pi * done / total)), abs=1e-15
        )
    assert learning_rate_factor(22_500, total) == pytest.approx(0.5)


def test_warm_up_rises_to_the_cosine() -> None:
    factors = [learning_rate_factor(step, 14, 4) for step in range(14)]
    assert factors[:5] == pytest.approx([0.2, 0.4, 0.6, 0.8, 1.0])
    assert factors[9] == pytest.approx(0.5) and factors[13] > 0


def test_rates_are_set_on_all_groups() -> None:
    optimizer = make_optimizer(Model(), 1e-3, 1e-4, 0.01)
    set_learning_rates(optimizer.param_groups, 0.5)
    set_learning_rates(optimizer.param_groups, 0.25)
    assert [group["lr"] for group in optimizer.param_groups] == pytest.approx([2.5e-4, 2.5e-5])


def test_average_follows_parameters_and_copies_buffers() -> None:
    model = Model()
    average = AveragedWeights(model, 0.9)
    start = model.fuser.weight.detach().clone()
    with torch.no_grad():
        model.fuser.weight += 1
        model.norm.running_mean += 3
    average.update(model)
    assert torch.allclose(average.state["fuser.weight"], start + 0.1)
    assert torch.equal(average.state["norm.running_mean"], torch.full((2,), 3.0))
    other = AveragedWeights(Model(), 0.9)
    other.load(average.state)
    assert all(torch.equal(other.state[name], value) for name, value in average.state.items())


@pytest.mark.parametrize("number, code", [(signal.SIGTERM, 143), (signal.SIGINT, 130)])
def test_signals_are_noted_and_handlers_put_back(number: int, code: int) -> None:
    before = signal.getsignal(number)
    with StopSignals() as stop:
        assert stop.code == 0
        os.kill(os.getpid(), number)
        assert stop.code == code
        if number == signal.SIGINT:
            with pytest.raises(KeyboardInterrupt):
                os.kill(os.getpid(), number)
    assert signal.getsignal(number) == before
