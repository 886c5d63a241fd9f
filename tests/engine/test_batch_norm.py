"""Batch norm sees as many samples as the configuration asks for, on any number of processes, or a warning says so."""

import pytest
import torch
from torch import nn

from xmask3d.config import TrainConfig, load_config
from xmask3d.engine.batch_norm import micro_batches, other_statistics, synchronise
from xmask3d.engine.batches import EpochBatches
from xmask3d.errors import UserError
from xmask3d.sparse import BatchNorm


@pytest.mark.parametrize(("processes", "count"), [(1, 4), (2, 2), (4, 1)])
def test_published_batches_on_any_number_of_gpus(processes: int, count: int) -> None:
    train = load_config("scannet/B15N4").train
    assert micro_batches(train, processes) == count
    batches = EpochBatches(64, train.batch_size, 1, 0, processes, count)
    assert {len(batch) for batch in batches} == {16}
    assert other_statistics(train, processes) is None


@pytest.mark.parametrize(("processes", "samples"), [(8, 8), (16, 4), (64, 1)])
def test_more_gpus_than_published_are_warned_of(processes: int, samples: int) -> None:
    train = load_config("scannet200/B170N30").train
    assert micro_batches(train, processes) == 1
    warning = other_statistics(train, processes) or ""
    assert warning.startswith(f"batch norm sees {samples} sample(s) at a time instead of train.samples_per_process=16")


@pytest.mark.parametrize(
    ("samples", "norm", "processes", "seen"),
    [(16, "sync", 1, None), (16, "sync", 2, 32), (8, "sync", 8, 64), (6, "local", 1, 4), (None, "sync", 8, None)],
)
def test_what_batch_norm_sees(samples: int | None, norm: str, processes: int, seen: int | None) -> None:
    train = TrainConfig(batch_size=64, samples_per_process=samples, batch_norm=norm)  # type: ignore[arg-type]
    warning = other_statistics(train, processes)
    assert warning is None if seen is None else f" {seen} sample(s)" in (warning or "")


def test_without_a_limit_micro_batches_are_as_many_as_asked_for() -> None:
    assert micro_batches(TrainConfig(batch_size=8, accumulate=2), 2) == 2
    with pytest.raises(ValueError, match="samples_per_process decides it"):
        TrainConfig(batch_size=8, accumulate=2, samples_per_process=2)


def test_statistics_are_shared_on_gpus_only() -> None:
    model = nn.Sequential(nn.Linear(2, 2), BatchNorm(2))
    names = list(model.state_dict())
    synchronise(model, "cpu", 1)
    assert type(model[1].bn) is nn.BatchNorm1d
    with pytest.raises(UserError, match="batch_norm=sync needs GPUs"):
        synchronise(model, "cpu", 2)
    synchronise(model, "cuda", 2)
    assert isinstance(model[1].bn, nn.SyncBatchNorm) and list(model.state_dict()) == names
    assert torch.equal(model[1].bn.running_var, torch.ones(2))
