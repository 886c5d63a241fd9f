"""Schedule of a training run."""

from dataclasses import dataclass


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
