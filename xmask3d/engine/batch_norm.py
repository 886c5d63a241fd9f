"""Number of samples behind batch norm's statistics: part of the method, so it must not depend on the machine."""

from torch import nn

from xmask3d.config import TrainConfig
from xmask3d.errors import UserError


def micro_batches(train: TrainConfig, processes: int) -> int:
    """Return the number of micro-batches per step and process, each of at most `train.samples_per_process` samples."""
    share, wanted = train.batch_size // processes, train.samples_per_process
    if wanted is None or share <= wanted:
        return train.accumulate
    return next(count for count in range(1, share + 1) if share % count == 0 and share // count <= wanted)


def other_statistics(train: TrainConfig, processes: int) -> str | None:
    """Return a warning if batch norm sees another number of samples than the configuration asks for, else None."""
    wanted = train.samples_per_process
    seen = train.batch_size // (processes * micro_batches(train, processes))
    if train.batch_norm == "sync":
        seen *= processes
    if wanted is None or seen == wanted:
        return None
    return (
        f"batch norm sees {seen} sample(s) at a time instead of train.samples_per_process={wanted}, which changes "
        f"results: train.batch_size={train.batch_size} on {processes} process(es) with train.batch_norm="
        f"{train.batch_norm}; use a number of processes that leaves each a multiple of {wanted}"
    )


def synchronise(model: nn.Module, device: str, processes: int) -> None:
    """Let all batch norms of a model share their statistics among processes. The names of tensors do not change.

    Raises:
        UserError: several processes without GPUs, for which torch has no such layer.
    """
    if processes == 1:
        return
    if device != "cuda":
        raise UserError("train.batch_norm=sync needs GPUs; use train.batch_norm=local, or one process")
    nn.SyncBatchNorm.convert_sync_batchnorm(model)
