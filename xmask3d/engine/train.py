"""Training from a configuration: assembles the parts of a run and lets a `Trainer` take the steps."""

import os
from collections.abc import Callable, Sequence
from contextlib import nullcontext
from dataclasses import fields
from functools import partial
from pathlib import Path

import numpy as np
import torch
from accelerate import Accelerator
from accelerate.utils import broadcast_object_list, set_seed

from xmask3d.build import (
    build_criterion,
    build_labeller,
    build_model,
    build_training_views,
    build_validation_views,
    make_optimizer,
)
from xmask3d.checkpoints.checkpoint import (
    Checkpoint,
    CheckpointFolder,
    apply_weights,
    is_of_network_alone,
    load_weights,
    read_checkpoint,
)
from xmask3d.checkpoints.sources import weights_in
from xmask3d.config import Config, save_config
from xmask3d.data.datasets import UNCAPTIONED, TrainingViews
from xmask3d.engine.accelerator import make_accelerator, unusable_gpu, use_training_arithmetic
from xmask3d.engine.batch_norm import micro_batches, other_statistics, synchronise
from xmask3d.engine.batches import EpochBatches
from xmask3d.engine.gate import can_fit_gate, fit_to_training_scenes, unused_fit
from xmask3d.engine.memory_plan import choose_checkpointing
from xmask3d.engine.optim import Schedule
from xmask3d.engine.resume_check import check_resumable
from xmask3d.engine.signals import StopSignals
from xmask3d.engine.trainer import Trainer
from xmask3d.engine.validate import ValidationSettings
from xmask3d.errors import UserError
from xmask3d.files import locked
from xmask3d.losses.criterion import Criterion
from xmask3d.losses.loss import Loss
from xmask3d.metrics.scores import check_headlines
from xmask3d.resources import find_file
from xmask3d.splits import load_benchmark


def train(config: Config, draw_view: Callable[..., np.ndarray] | None = None, losses: Sequence[Loss] = ()) -> int:
    """Train `config`'s model in `config.output`, from the newest intact checkpoint there if there is one.

    It runs in one process or in several started by torchrun. All of them share `config.train.batch_size` and must see
    the same folder `output`. On a CPU, a run that is stopped or killed at any step and started again ends with the same
    weights bit for bit.

    Args:
        draw_view: draws a view for TensorBoard at validations; None for no pictures.
        losses: losses beside those of the configuration, for those that need more than a weight.

    Returns:
        Exit code: 0 if the run is complete, even if it already was; 143 after SIGTERM and 130 after SIGINT, once the
        run is saved.

    Raises:
        UserError: bad data, a configuration that is not the run's, another process in the folder, a full disk, or a
            loss that is not finite.
    """
    first = int(os.environ.get("RANK", 0)) == 0  # number of processes that share the folder
    with locked(config.output, "a training") if first else nullcontext():
        return _train(config, draw_view, losses)


def _train(config: Config, draw_view: Callable[..., np.ndarray] | None, losses: Sequence[Loss]) -> int:
    trainer = open_trainer(config, draw_view)
    trainer.criterion.losses += losses
    if trainer.step >= trainer.total_steps and not trainer.owes_validation:
        trainer.accelerator.print(f"complete: {config.train.epochs} epochs, {trainer.step} steps, in {config.output}")
        return 0
    found = (
        check_captions(config, trainer.criterion, trainer.views),
        other_statistics(config.train, trainer.accelerator.num_processes),
        unused_fit(config, trainer.benchmark),
        unusable_gpu(),
    )
    trainer.warnings = [warning for warning in found if warning]
    _give_model(trainer, config)
    with StopSignals() as stop:
        return trainer.run(stop)


def open_trainer(config: Config, draw_view: Callable[..., np.ndarray] | None = None) -> Trainer:
    """Open the trainer of a run at its latest checkpoint, without its networks.

    Raises:
        UserError: bad data, or a configuration that is not the run's.
    """
    train, accelerator = config.train, make_accelerator(config.train.precision)
    if accelerator.device.type == "cpu":
        # A fixed order of sums makes resuming exact bit for bit. On a GPU it would cost speed and not be enough.
        torch.use_deterministic_algorithms(True, warn_only=True)
        torch.utils.deterministic.fill_uninitialized_memory = False  # type: ignore[attr-defined]
    else:
        use_training_arithmetic()
    benchmark = load_benchmark(config.benchmark)
    criterion = build_criterion(config, benchmark)
    check_headlines(config.evaluate.headlines, benchmark.num_classes, benchmark.groups)
    views = build_training_views(config, benchmark)
    process, processes = accelerator.process_index, accelerator.num_processes
    accumulate = micro_batches(train, processes)
    batches = EpochBatches(len(views), train.batch_size, config.seed, process, processes, accumulate)
    kept = frozenset(epoch * batches.steps_per_epoch for epoch in train.checkpoints)
    folder = CheckpointFolder(config.output / "checkpoints", train.keep, kept)
    scheduled = {field.name for field in fields(Schedule)} - {"accumulate"}  # keys of the same names in `train`
    return Trainer(
        output=config.output,
        schedule=Schedule(
            seed=config.seed,
            workers=config.data.workers,
            accumulate=accumulate,
            **train.model_dump(include=scheduled),
        ),
        validation=ValidationSettings(
            config.evaluate.headlines, train.evaluate_views, config.evaluate.batch_size, config.data.workers
        ),
        config_values=config.model_dump(mode="json"),
        accelerator=accelerator,
        benchmark=benchmark,
        criterion=criterion,
        views=views,
        batches=batches,
        open_validation_views=partial(build_validation_views, config, benchmark),
        folder=folder,
        resumed=_load_newest(config, accelerator, folder, batches.steps_per_epoch),
        draw_view=draw_view,
    )


def check_captions(config: Config, criterion: Criterion, views: TrainingViews) -> str | None:
    """Check that views have the captions that losses need; a view without a caption takes no part in three losses.

    Returns:
        A warning if a few views have no caption, else None.

    Raises:
        UserError: more than the share `UNCAPTIONED` of the views has none, so this would not be the run asked for.
    """
    condition = config.model.condition == "text"
    if not (criterion.needs("captions") or condition):
        return None
    data = config.data
    with_caption, total = views.count_captions()
    missing = total - with_caption
    if not missing:
        return None
    problem = (
        f"{missing} of {total} views of split '{data.train_split}' have no caption in "
        f"{data.captions or data.root / 'captions.json'}, though "
        f"{'model.condition is text' if condition else 'caption losses have weights'}"
    )
    if missing <= UNCAPTIONED * total:
        return f"{problem}; these views train without them (xmask3d caption writes those that are missing)"
    raise UserError(
        f"{problem}; download the released ones of ScanNet with xmask3d download captions, write those that are "
        "missing with xmask3d caption, or set "
        + ("another model.condition" if condition else "loss.caption_fused, loss.caption_3d and loss.caption_2d to 0")
    )


def _give_model(trainer: Trainer, config: Config) -> None:
    """Build model, optimiser and labeller for a trainer."""
    train, device = config.train, trainer.device
    config, choice = choose_checkpointing(config, trainer.accelerator.num_processes, device)
    if choice:
        trainer.accelerator.print(choice)
    set_seed(config.seed)
    assembly = build_model(config)
    if train.start_from and trainer.resumed is None:
        source = weights_in(find_file(train.start_from))
        apply_weights(assembly.model, load_weights(source), source, strict=is_of_network_alone(source))
    model, clip_text = assembly.model.to(device), assembly.clip_text.to(device)
    if train.batch_norm == "sync":
        synchronise(model, device.type, trainer.accelerator.num_processes)
    optimizer = make_optimizer(model, train.lr_3d, train.lr_others, train.weight_decay)
    trainer.prepare(model, clip_text, optimizer, train.ema)
    if train.feature_cache:
        trainer.keep_features(config.data.cache, config.data.image_size)
    trainer.labeller = build_labeller(config, assembly, trainer.benchmark, trainer.accelerator)
    if can_fit_gate(config, trainer.benchmark):
        trainer.fit_gate = partial(fit_to_training_scenes, config, trainer.benchmark)
    trainer.restore_random_state()


def _load_newest(
    config: Config, accelerator: Accelerator, folder: CheckpointFolder, steps_per_epoch: int
) -> Checkpoint | None:
    """Load the newest intact checkpoint, which the first process chooses for all; check and save the configuration."""
    found: list[Path | None] = [None]
    checkpoint = None
    if accelerator.is_main_process:
        loaded = folder.load_newest()
        if loaded:
            found[0], checkpoint = loaded
        folder.tidy(checkpoint.step if checkpoint else -1)
    broadcast_object_list(found)
    if found[0] and checkpoint is None:
        checkpoint = read_checkpoint(found[0])
    if checkpoint:
        check_resumable(config, checkpoint, steps_per_epoch)
    if accelerator.is_main_process:
        save_config(config, config.output / "config.yaml")
    return checkpoint
