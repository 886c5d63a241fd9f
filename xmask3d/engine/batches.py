"""Order of training samples: it depends on (seed, epoch, step) alone, not on the number of processes or on resuming."""

import signal
from collections.abc import Iterator
from dataclasses import replace

import torch
from torch.utils.data import DataLoader, Dataset, Sampler

from xmask3d.data.batch import Batch
from xmask3d.data.datasets import collate_usable
from xmask3d.errors import UserError
from xmask3d.workers import allowed_workers

TRANSLATION = 100


class EpochBatches(Sampler[list[int]]):
    """Sample indices of the micro-batches of one process, shuffled per epoch; an incomplete last step is dropped.

    Step k of an epoch uses the k-th `batch_size` entries of the epoch's permutation. They are distributed over
    micro-batches and processes in turn, so that one process with two micro-batches and two processes with one
    micro-batch each split a step in the same way.

    Args:
        length: samples in an epoch.
        batch_size: samples per optimiser step over all processes and micro-batches.
        seed: seed of the permutations.
        rank, processes: number of this process, and number of all processes.
        accumulate: micro-batches per step.
    """

    def __init__(
        self, length: int, batch_size: int, seed: int, rank: int = 0, processes: int = 1, accumulate: int = 1
    ) -> None:
        if batch_size % (processes * accumulate):
            raise UserError(
                f"train.batch_size={batch_size} cannot be shared by {processes} processes with "
                f"train.accumulate={accumulate}; use a multiple of {processes * accumulate}"
            )
        if length < batch_size:
            raise UserError(
                f"an epoch has {length} samples, fewer than train.batch_size={batch_size}; "
                "lower it, or raise data.views_per_scene"
            )
        self.length, self.batch_size, self.seed = length, batch_size, seed
        self.rank, self.processes, self.accumulate = rank, processes, accumulate
        self.epoch = self.start = 0

    @property
    def steps_per_epoch(self) -> int:
        """Optimiser steps in an epoch."""
        return self.length // self.batch_size

    def seek(self, epoch: int, start: int = 0) -> None:
        """Set the next iteration to begin at step `start` of `epoch`."""
        self.epoch, self.start = epoch, start

    def __len__(self) -> int:
        return (self.steps_per_epoch - self.start) * self.accumulate

    def __iter__(self) -> Iterator[list[int]]:
        order = torch.randperm(self.length, generator=generator_for(self.seed, self.epoch)).tolist()
        size = self.batch_size // (self.processes * self.accumulate)
        for step in range(self.start, self.steps_per_epoch):
            for micro in range(self.accumulate):
                first = step * self.batch_size + (micro * self.processes + self.rank) * size
                yield order[first : first + size]


def generator_for(*numbers: int, device: torch.device | str = "cpu") -> torch.Generator:
    """Make a generator whose seed depends on several integers and differs for each combination."""
    seed = 0
    for number in numbers:
        seed = _mix(seed ^ (number & 0xFFFFFFFFFFFFFFFF))
    # below 2**63, which manual_seed accepts on all devices
    return torch.Generator(device=device).manual_seed(seed >> 1)


def translate(batch: Batch, seed: int, step: int) -> Batch:
    """Move all voxels of a step by one random integer vector, the same in every process and micro-batch.

    The strided convolutions thus see each scene on another grid every time (published: below 100 voxels along each
    axis).
    """
    offset = torch.randint(TRANSLATION, (3,), generator=generator_for(seed, step), dtype=torch.int32)
    moved = batch.voxel_coords.clone()
    moved[:, 1:] += offset.to(moved)
    return replace(batch, voxel_coords=moved)


def make_loader(dataset: Dataset, batches: Sampler[list[int]], workers: int, for_gpu: bool) -> DataLoader:
    """Make a loader of `Batch`es whose workers leave the handling of signals to the main process.

    For a GPU, batches are pinned and workers stay alive from epoch to epoch, so that the GPU does not wait.
    """
    workers = allowed_workers(workers)
    return DataLoader(
        dataset,
        batch_sampler=batches,
        num_workers=workers,
        collate_fn=collate_usable,
        pin_memory=for_gpu,
        persistent_workers=for_gpu and workers > 0,
        worker_init_fn=ignore_signals,
        generator=generator_for(0),  # without it each epoch and each resumption would draw from the global generator
    )


def ignore_signals(worker: int) -> None:
    """Ignore Ctrl-C in a loader worker, which also receives it but must live until the main process has saved."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.signal(signal.SIGTERM, signal.SIG_IGN)


def _mix(value: int) -> int:
    """Apply the finaliser of SplitMix64: every input bit changes half of the 64 output bits."""
    value = (value + 0x9E3779B97F4A7C15) & 0xFFFFFFFFFFFFFFFF
    value = ((value ^ (value >> 30)) * 0xBF58476D1CE4E5B9) & 0xFFFFFFFFFFFFFFFF
    value = ((value ^ (value >> 27)) * 0x94D049BB133111EB) & 0xFFFFFFFFFFFFFFFF
    return value ^ (value >> 31)
