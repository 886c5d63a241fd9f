"""Resume check: a run continues only with a configuration that leaves its results unchanged."""

from xmask3d.checkpoints.checkpoint import Checkpoint
from xmask3d.config import RENAMED, Config
from xmask3d.errors import UserError

# Keys that may differ between a run and its resumption, because they do not affect the weights of a step.
FREE_KEYS = (
    "output", "evaluate", "sparse", "model.checkpointing",
    "data.root", "data.cache", "data.workers", "data.val_split",
    "train.epochs", "train.log_every", "train.save_every", "train.save_minutes", "train.keep", "train.checkpoints",
    "train.evaluate_every", "train.evaluate_views", "train.picture_every", "train.fit_gate",
)  # fmt: skip


def check_resumable(config: Config, checkpoint: Checkpoint, steps_per_epoch: int) -> None:
    """Refuse to resume if the configuration or the amount of data differs from the checkpoint's.

    Raises:
        UserError: names the keys that differ, with both values.
    """
    ours = _flatten(config.model_dump(mode="json"))
    saved = {RENAMED.get(key, key): value for key, value in _flatten(checkpoint.config).items()}
    theirs = _flatten(Config().model_dump(mode="json")) | saved  # the run predates this key, which then had its default
    differ = [
        f"{key}: {theirs[key]} in the run, {ours[key]} now"
        for key in sorted(ours)
        if ours[key] != theirs[key] and not any(key == free or key.startswith(free + ".") for free in FREE_KEYS)
    ]
    if differ:
        raise UserError(
            f"{config.output} holds a run with another configuration ({'; '.join(differ)}); "
            "use its values, or another output=FOLDER"
        )
    if checkpoint.steps_per_epoch != steps_per_epoch:
        raise UserError(
            f"{config.output}: its run had {checkpoint.steps_per_epoch} steps an epoch, the data now give "
            f"{steps_per_epoch}; restore the training scenes, or use another output=FOLDER"
        )


def _flatten(values: dict, prefix: str = "") -> dict[str, object]:
    """Flatten {"a": {"b": 1}} to {"a.b": 1}; the user's list of own losses counts as one value."""
    flat: dict[str, object] = {}
    for key, value in values.items():
        own = prefix + key == "loss.extra" or key.endswith("_options")
        inner = isinstance(value, dict) and not own
        flat |= _flatten(value, f"{prefix}{key}.") if inner else {prefix + key: value}
    return flat
