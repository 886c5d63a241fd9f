"""The order of samples depends on (seed, epoch, step) alone."""

from pathlib import Path

import pytest

from xmask3d.build import build_training_views
from xmask3d.config import load_config
from xmask3d.engine.batches import EpochBatches, generator_for, make_loader
from xmask3d.errors import UserError
from xmask3d.splits import load_benchmark


def steps(batches: EpochBatches, epoch: int, start: int = 0) -> list[list[int]]:
    batches.seek(epoch, start)
    return list(batches)


def test_an_epoch_is_a_permutation_without_the_rest() -> None:
    batches = EpochBatches(length=23, batch_size=4, seed=5)
    first, second = steps(batches, 0), steps(batches, 1)
    assert batches.steps_per_epoch == len(first) == 5
    for epoch in (first, second):
        seen = [index for batch in epoch for index in batch]
        assert len(seen) == len(set(seen)) == 20 and set(seen) <= set(range(23))
    assert first != second
    assert first == steps(EpochBatches(23, 4, 5), 0)
    assert first != steps(EpochBatches(23, 4, 6), 0)


def test_seeking_gives_the_rest_of_the_same_epoch() -> None:
    batches = EpochBatches(40, 4, seed=1, accumulate=2)
    whole = steps(batches, 3)
    rest = steps(batches, 3, start=6)
    assert rest == whole[12:] and len(batches) == len(rest) == 8


@pytest.mark.parametrize("processes, accumulate", [(1, 1), (2, 1), (1, 2), (2, 2), (4, 1)])
def test_any_layout_has_the_same_global_batches(processes: int, accumulate: int) -> None:
    one = [sorted(batch) for batch in steps(EpochBatches(50, 8, seed=9), 2)]
    shares = [steps(EpochBatches(50, 8, 9, rank, processes, accumulate), 2) for rank in range(processes)]
    for k, batch in enumerate(one):
        parts = [share[k * accumulate + micro] for share in shares for micro in range(accumulate)]
        assert {len(part) for part in parts} == {8 // (processes * accumulate)}
        assert sorted(index for part in parts for index in part) == batch


def test_micro_batches_split_as_processes_do() -> None:
    alone = steps(EpochBatches(50, 8, seed=9, accumulate=2), 0)
    pair = [steps(EpochBatches(50, 8, 9, rank, 2), 0) for rank in (0, 1)]
    assert alone == [part for both in zip(*pair, strict=True) for part in both]


def test_sizes_that_cannot_be() -> None:
    with pytest.raises(UserError, match="cannot be shared by 3 processes"):
        EpochBatches(100, 8, 0, processes=3)
    with pytest.raises(UserError, match=r"an epoch has 6 samples, fewer than train\.batch_size=8"):
        EpochBatches(6, 8, 0)


def test_generators_differ_by_every_number() -> None:
    seeds = {
        generator_for(*numbers).initial_seed() for numbers in [(1, 2, 3), (1, 3, 2), (2, 1, 3), (1, 2), (0, 1, 2, 3)]
    }
    assert len(seeds) == 5
    assert generator_for(1, 2).initial_seed() == generator_for(1, 2).initial_seed()


def test_workers_that_stay_for_a_gpu_see_each_epoch(tiny: Path) -> None:
    config = load_config(tiny)
    views = build_training_views(config, load_benchmark(config.benchmark))
    drawn = {}
    for workers in (0, 1):
        batches = EpochBatches(len(views), 4, seed=1)
        loader = make_loader(views, batches, workers, for_gpu=True)
        assert loader.pin_memory and loader.persistent_workers == (workers > 0)
        for epoch in (0, 1):
            views.set_epoch(epoch)
            batches.seek(epoch)
            drawn[workers, epoch] = [(batch.views, batch.points.tolist()) for batch in loader]
    assert drawn[0, 0] == drawn[1, 0] != drawn[0, 1] == drawn[1, 1]
    assert not make_loader(views, batches, 1, for_gpu=False).persistent_workers
