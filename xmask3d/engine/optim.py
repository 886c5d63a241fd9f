"""Schedule of a training run, its learning rates, and averaged weights."""

import math
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass

import torch
from torch import Tensor, nn


@dataclass(frozen=True)
class Schedule:
    """Settings of a run's steps and of the times at which it saves, validates and reports.

    Attributes:
        epochs: number of epochs of the run.
        batch_size: samples per step over all processes.
        accumulate: micro-batches per step.
        warmup_steps: steps of linear warm-up before the cosine.
        clip_grad: largest gradient norm; None for no limit.
        log_every: steps between log lines.
        save_every: epochs between checkpoints.
        save_minutes: minutes between checkpoints within an epoch; None for no such checkpoints.
        checkpoints: epochs whose checkpoints are never deleted.
        evaluate_every: epochs between validations; 0 for never.
        picture_every: epochs between pictures; 0 for never.
        seed: seed of the random numbers of steps and samples.
        workers: loader processes.
    """

    epochs: int
    batch_size: int
    accumulate: int
    warmup_steps: int
    clip_grad: float | None
    log_every: int
    save_every: int
    save_minutes: float | None
    checkpoints: list[int]
    evaluate_every: int
    picture_every: int
    seed: int
    workers: int


def learning_rate_factor(step: int, steps: int, warmup: int = 0) -> float:
    """Return the factor of the learning rates in step `step` (from 0) of `steps`.

    A linear rise over `warmup` steps, then half a cosine to 0. Without warm-up the first step has factor 1 and step i
    has (1 + cos(pi i / steps)) / 2.
    """
    if step < warmup:
        return (step + 1) / (warmup + 1)
    return 0.5 * (1 + math.cos(math.pi * (step - warmup) / max(1, steps - warmup)))


def set_learning_rates(groups: Iterable[dict], factor: float) -> None:
    """Set each group's rate to `factor` times its initial one."""
    for group in groups:
        group["lr"] = group["initial_lr"] * factor


class AveragedWeights:
    """Exponential moving average of a model's state dict.

    Floating-point parameters are averaged; buffers (batch-norm statistics, already averages) are copied.
    """

    def __init__(self, model: nn.Module, decay: float) -> None:
        self.decay = decay
        self.state = {name: value.detach().clone() for name, value in model.state_dict().items()}

    @torch.no_grad()
    def update(self, model: nn.Module) -> None:
        """Move the averages one step towards the model's present weights."""
        parameters = dict(model.named_parameters())
        for name, value in model.state_dict().items():
            if name in parameters:
                self.state[name].lerp_(value, 1 - self.decay)
            else:
                self.state[name].copy_(value)

    @contextmanager
    def applied(self, model: nn.Module) -> Iterator[None]:
        """Load the averaged weights into the model for the duration of a context."""
        own = {name: value.clone() for name, value in model.state_dict().items()}
        model.load_state_dict(self.state)
        try:
            yield
        finally:
            model.load_state_dict(own)

    def load(self, state: dict[str, Tensor]) -> None:
        """Continue from a saved average."""
        for name, value in state.items():
            self.state[name].copy_(value)
