"""The training loop."""

import math
import time
from collections.abc import Callable, Iterator
from contextlib import nullcontext
from datetime import timedelta
from pathlib import Path

import numpy as np
import torch
from accelerate.utils import broadcast_object_list, gather_object, set_seed
from torch import Tensor
from tqdm import tqdm

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
    random_state,
    read_checkpoint,
    restore_random_state,
)
from xmask3d.checkpoints.validations import read_validations, record_validation
from xmask3d.config import Config, save_config
from xmask3d.data.batch import Batch
from xmask3d.engine.accelerator import make_accelerator
from xmask3d.engine.batches import EpochBatches, generator_for, make_loader, translate
from xmask3d.engine.feature_cache import FeatureCache
from xmask3d.engine.logs import RunLog, peak_memory
from xmask3d.engine.optim import AveragedWeights, learning_rate_factor, set_learning_rates
from xmask3d.engine.resume_check import check_same_run
from xmask3d.engine.signals import StopSignals
from xmask3d.engine.training_step import TrainingStep
from xmask3d.engine.validate import validate
from xmask3d.errors import UserError
from xmask3d.metrics.scores import check_headlines, title_of
from xmask3d.splits import load_benchmark

MAX_SKIPPED = 50  # float16 steps in a row that may overflow; the loss scale has then been halved as often


def train(config: Config, draw_view: Callable[..., np.ndarray] | None = None) -> int:
    """Train `config`'s model in `config.output`, from the newest good checkpoint there if there is one.

    Runs in one process, or in those that torchrun starts: `config.train.batch_size` is shared by all of them, and
    `output` is one folder that all see. On a CPU, a run that was stopped or killed at any step and started again ends
    in the same weights bit for bit.

    Args:
        draw_view: draws a view for TensorBoard at validations; no pictures without it.

    Returns:
        Exit code: 0 when complete (also when it was before), 143 after SIGTERM and 130 after SIGINT, having saved.

    Raises:
        UserError: bad data, a configuration that is not the run's, a full disk, or a loss that is not finite.
    """
    trainer = Trainer(config, draw_view)
    if trainer.step >= trainer.total_steps and not trainer.owes_validation:
        trainer.accelerator.print(f"complete: {config.train.epochs} epochs, {trainer.step} steps, in {config.output}")
        return 0
    trainer.build()
    with StopSignals() as stop:
        return trainer.run(stop)


class Trainer:
    """One run: where it stands, what it works on, and the steps it takes.

    Attributes:
        step: optimiser steps done; the position in the data is `divmod(step, steps_per_epoch)`.
        total_steps: where the run ends.
    """

    def __init__(self, config: Config, draw_view: Callable[..., np.ndarray] | None = None) -> None:
        """Find out where the run stands; nothing heavy yet."""
        self.config, self.settings, self.draw_view = config, config.train, draw_view
        self.accelerator = make_accelerator(config.train.precision)
        self.device = self.accelerator.device
        if self.device.type == "cpu":
            # Sums in a fixed order, for resuming bit for bit. On a GPU it would cost speed and not suffice.
            torch.use_deterministic_algorithms(True, warn_only=True)
            torch.utils.deterministic.fill_uninitialized_memory = False  # type: ignore[attr-defined]
        self.benchmark = load_benchmark(config.benchmark)
        self.criterion = build_criterion(config, self.benchmark)
        check_headlines(config.evaluate.headlines, self.benchmark.num_classes, self.benchmark.groups)
        self.views = build_training_views(config, self.benchmark)
        self.batches = EpochBatches(
            len(self.views),
            config.train.batch_size,
            config.seed,
            self.accelerator.process_index,
            self.accelerator.num_processes,
            config.train.accumulate,
        )
        self.steps_per_epoch = self.batches.steps_per_epoch
        self.total_steps = config.train.epochs * self.steps_per_epoch
        kept = frozenset(epoch * self.steps_per_epoch for epoch in config.train.checkpoints)
        self.folder = CheckpointFolder(config.output / "checkpoints", config.train.keep, kept)
        self.resumed = self._load_newest()
        self.step = self.resumed.step if self.resumed else 0
        self.owes_validation = self.any_process(self._missed_validation())

    def build(self) -> None:
        """Build model, optimiser and texts, and put back what the checkpoint holds."""
        config, settings, resumed = self.config, self.settings, self.resumed
        set_seed(config.seed)
        assembly = build_model(config)
        self.model = assembly.model.to(self.device)
        self.clip_text = assembly.clip_text.to(self.device)
        if self.device.type == "cpu":
            # The last bits of a matrix product depend on its number of rows: a resumed run, which has yet to encode
            # captions that the first one knew, would get other ones.
            self.clip_text.batch_size = 1
        optimizer = make_optimizer(self.model, settings.lr_3d, settings.lr_others, settings.weight_decay)
        if resumed:
            apply_weights(self.model, resumed.model, "the newest checkpoint")
            optimizer.load_state_dict(resumed.optimizer)
        self.average = AveragedWeights(self.model, settings.ema) if settings.ema else None
        if resumed and resumed.ema and self.average:
            self.average.load(resumed.ema)
        stepper = TrainingStep(self.model, self.criterion)
        self.stepper, self.optimizer = self.accelerator.prepare(stepper, optimizer)
        if resumed and resumed.scaler and self.accelerator.scaler:
            self.accelerator.scaler.load_state_dict(resumed.scaler)
        self.feature_cache: FeatureCache | None = None
        if settings.keep_encodings and self.criterion.needs("masks"):  # nothing else reads them, but for the captions
            parts = self.model.image_features, self.model.mask_clip, self.clip_text
            cache = self.feature_cache = FeatureCache(*parts, config.data.cache)
            tokens = self.criterion.needs("clip", settings.epochs - 1)
            self.accelerator.print(cache.announce(self.views.all_views(), config.data.image_size, tokens))
        self.text = self.clip_text(self.benchmark.base_names)
        self.labeller = build_labeller(config, assembly, self.benchmark, self.accelerator)
        set_seed(config.seed + self.accelerator.process_index)
        if resumed and len(resumed.rng) == self.accelerator.num_processes:
            restore_random_state(resumed.rng[self.accelerator.process_index])
        self.resumed = None  # free its memory

    def run(self, stop: StopSignals) -> int:
        """Take all steps that are left; returns the exit code."""
        settings, silent = self.settings, not self.accelerator.is_main_process
        self.log = RunLog(self.config.output, self.step, silent)
        self.log.line(
            f"{'resume at' if self.step else 'start at'} step {self.step} of {self.total_steps} "
            f"({settings.epochs} epochs of {self.steps_per_epoch}), "
            f"{self.accelerator.num_processes} process(es) on {self.device.type}"
        )
        if warning := self.missing_captions():
            self.log.line(f"warning: {warning}")
        self.bar = tqdm(
            total=self.total_steps, initial=self.step, unit="step", dynamic_ncols=True, disable=silent or None
        )
        loader = make_loader(self.views, self.batches, self.config.data.workers, self.device.type == "cuda")
        self.skipped = 0
        code = self.validate(self.step // self.steps_per_epoch, stop) if self.owes_validation else 0
        while self.step < self.total_steps and not code:
            epoch, start = divmod(self.step, self.steps_per_epoch)
            self.views.set_epoch(epoch)
            self.batches.seek(epoch, start)
            code = self.run_epoch(epoch, iter(loader), stop)
            if not code:
                code = self.end_epoch(epoch + 1, stop)
        self.bar.close()
        self.log.line(
            f"stopped by a signal after step {self.step}, saved; start again to resume"
            if code
            else f"complete: {settings.epochs} epochs, {self.step} steps"
        )
        self.log.close()
        return code

    def missing_captions(self) -> str | None:
        """One line if losses ask for captions and there are none: without them they rest."""
        data = self.config.data
        if not self.criterion.needs("captions") or self.views.have_captions():
            return None
        return (
            f"no view of split '{data.train_split}' has a caption in {data.captions or data.root / 'captions.json'}, "
            "though caption losses have weights; make it with xmask3d caption, or set loss.caption_fused, "
            "loss.caption_3d and loss.caption_2d to 0"
        )

    def run_epoch(self, epoch: int, batches: Iterator[Batch], stop: StopSignals) -> int:
        """Take the steps left of an epoch; returns the exit code of a signal, having saved, or 0."""
        self.stepper.train()
        self.start_window()
        last_save = time.monotonic()
        while self.step < (epoch + 1) * self.steps_per_epoch:
            losses = self.take_step(epoch, batches)
            self.step += 1
            self.bar.update()
            self.add_to_window(losses)
            if self.step % self.settings.log_every == 0:
                self.report()
            minutes = (time.monotonic() - last_save) / 60
            overdue = self.settings.save_minutes is not None and minutes > self.settings.save_minutes
            code, overdue = self.agree(stop.code, overdue)
            if code or (overdue and self.step % self.steps_per_epoch):
                self.save()
                last_save = time.monotonic()
            if code:
                return code
        return 0

    def take_step(self, epoch: int, batches: Iterator[Batch]) -> dict[str, Tensor]:
        """One step of the optimiser; returns the losses, averaged over its micro-batches."""
        rates = learning_rate_factor(self.step, self.total_steps, self.settings.warmup_steps)
        set_learning_rates(self.optimizer.param_groups, rates)
        losses: dict[str, Tensor] = {}
        for micro in range(self.settings.accumulate):
            for name, value in self.backward(epoch, micro, next(batches)).items():
                losses[name] = losses.get(name, 0) + value.detach() / self.settings.accumulate
        norm = self.accelerator.clip_grad_norm_(self.model.parameters(), self.settings.clip_grad or math.inf)
        self.check_finite(losses, float(norm))
        self.optimizer.step()
        self.optimizer.zero_grad(set_to_none=True)
        if self.average:
            self.average.update(self.model)
        return losses | {"gradient_norm": norm}

    def backward(self, epoch: int, micro: int, batch: Batch) -> dict[str, Tensor]:
        """Forward and backward of one micro-batch; processes exchange gradients after the last one."""
        config, accelerator = self.config, self.accelerator
        batch = translate(batch.to(self.device), config.seed, self.step)
        generator = generator_for(config.seed, self.step, micro, accelerator.process_index, device=self.device)
        kept = self.feature_cache
        last = micro == self.settings.accumulate - 1
        with nullcontext() if last else accelerator.no_sync(self.stepper):
            losses = self.stepper(
                batch,
                self.text,
                kept.captions(batch) if kept else self.clip_text(batch.captions),
                epoch,
                generator,
                kept.images(batch) if kept else None,
                kept.tokens(batch) if kept and self.criterion.needs("clip", epoch) else None,
            )
            accelerator.backward(losses["total"] / self.settings.accumulate)
        return losses

    def check_finite(self, losses: dict[str, Tensor], norm: float) -> None:
        """Stop before a step that would spoil the weights.

        No step is skipped over a loss that is not finite. In float16 a gradient that overflows is usual: the loss
        scaler leaves such a step out and lowers its scale; only many in a row stop the run.
        """
        bad = not math.isfinite(float(losses["total"]))
        overflow = not math.isfinite(norm)
        self.skipped = self.skipped + 1 if overflow else 0
        bad |= overflow and (self.accelerator.scaler is None or self.skipped > MAX_SKIPPED)
        if not self.any_process(bad):
            return
        values = ", ".join(f"{name} {float(value):.4g}" for name, value in losses.items())
        saved = next(iter(self.folder.paths()), None)
        raise UserError(
            f"step {self.step + 1}: loss or gradient is not finite (gradient norm {norm:.4g}; {values}); "
            f"the step was not taken, newest checkpoint: {saved or 'none'}; lower the learning rates, set "
            "train.clip_grad, or use train.precision=float32"
        )

    def end_epoch(self, epochs: int, stop: StopSignals) -> int:
        """Save and validate as often as asked for; returns the exit code of a signal, or 0."""
        settings, last = self.settings, epochs == self.settings.epochs
        evaluate = self.is_validated(epochs)
        if last or evaluate or epochs % settings.save_every == 0 or epochs in settings.checkpoints:
            self.save()
        return self.validate(epochs, stop) if evaluate else self.agree(stop.code, False)[0]

    def is_validated(self, epochs: int) -> bool:
        """Whether there is a validation after so many epochs."""
        every = self.settings.evaluate_every
        return bool(every) and (epochs == self.settings.epochs or epochs % every == 0)

    def validate(self, epochs: int, stop: StopSignals) -> int:
        """Score some views of every scene with the averaged weights, if there are any.

        Returns:
            Exit code of a signal, which leaves the validation to the next start, or 0.
        """
        views = build_validation_views(self.config, self.benchmark)
        views.set_epoch(epochs - 1)
        state = random_state()  # whatever draws numbers here must not change what training draws next
        with self.average.applied(self.model) if self.average else nullcontext():
            result = validate(
                self.labeller,
                views,
                self.benchmark,
                self.config.evaluate.headlines,
                self.config.evaluate.batch_size,
                self.config.data.workers,
                stop,
                self.draw_view,
            )
        restore_random_state(state)
        if result is None:
            return self.agree(stop.code, False)[0]
        metrics, picture = result
        self.log.scalars({f"validation/{name}": value for name, value in metrics.items()}, self.step)
        every, last = self.settings.picture_every, epochs == self.settings.epochs
        if picture is not None and every and (last or epochs % every == 0):
            self.log.picture("validation", picture, self.step)
        best = self.config.evaluate.headlines[0]
        self.log.line(
            f"epoch {epochs}, {self.settings.evaluate_views} view(s) a scene: "
            f"{title_of(best)} fused {metrics[f'fused_{best}']:.4f} "
            f"(base {metrics['fused_miou_base']:.4f}, novel {metrics['fused_miou_novel']:.4f}), "
            f"2D {metrics[f'2d_{best}']:.4f}, 3D {metrics[f'3d_{best}']:.4f}, "
            f"binary accuracy {metrics['binary_accuracy']:.4f}"
        )
        if self.accelerator.is_main_process:
            record_validation(self.folder.folder, self.step, metrics)
            self.folder.mark_best(self.step, metrics[f"fused_{best}"])
        return self.agree(stop.code, False)[0]

    def save(self) -> None:
        """Save all there is; the first process writes, the others hand over their random state."""
        states = gather_object([random_state()])
        if not self.accelerator.is_main_process:
            return
        self.folder.save(
            Checkpoint(
                step=self.step,
                steps_per_epoch=self.steps_per_epoch,
                model=self.model.state_dict(),
                optimizer=self.optimizer.state_dict(),
                config=self.config.model_dump(mode="json"),
                ema=self.average.state if self.average else None,
                scaler=self.accelerator.scaler.state_dict() if self.accelerator.scaler else None,
                rng=states,
            )
        )

    def start_window(self) -> None:
        """Begin the means that the next log line shows."""
        self.window: dict[str, Tensor] = {}
        self.window_steps, self.window_start = 0, time.monotonic()

    def add_to_window(self, values: dict[str, Tensor]) -> None:
        """Add the losses of a step."""
        for name, value in values.items():
            self.window[name] = self.window.get(name, 0) + value
        self.window_steps += 1

    def report(self) -> None:
        """Log the means since the last report, over all processes."""
        names = sorted(self.window)
        sums = torch.stack([self.window[name].float() for name in names])
        means = self.accelerator.reduce(sums, reduction="mean") / self.window_steps
        values = dict(zip(names, means.tolist(), strict=True))
        seconds = time.monotonic() - self.window_start
        rate = self.window_steps * self.settings.batch_size / seconds
        rates = {"lr/3d": self.optimizer.param_groups[0]["lr"], "lr/others": self.optimizer.param_groups[1]["lr"]}
        scalars = {f"loss/{name}": value for name, value in values.items() if name != "gradient_norm"}
        scalars |= rates | {
            "run/gradient_norm": values["gradient_norm"],
            "run/samples_per_second": rate,
            "run/peak_memory_gib": peak_memory(self.device),
            "run/epoch": self.step / self.steps_per_epoch,
        }
        self.log.scalars(scalars, self.step)
        headings = self.criterion.groups
        groups = dict.fromkeys(headings.values(), 0.0)
        for name in values.keys() & headings.keys():
            groups[headings[name]] += values[name]
        shown = ", ".join(f"{group} {value:.3f}" for group, value in groups.items())
        left = timedelta(seconds=round((self.total_steps - self.step) * seconds / self.window_steps))
        self.log.line(
            f"step {self.step}/{self.total_steps} loss {values['total']:.3f} ({shown}) "
            f"{rate:.2f} samples/s, {left} left"
        )
        self.start_window()

    def agree(self, code: int, overdue: bool) -> tuple[int, bool]:
        """Let all processes act alike: the largest exit code, and whether any is overdue to save."""
        if self.accelerator.num_processes == 1:
            return code, overdue
        flags = gather_object([(code, overdue)])
        return max(c for c, _ in flags), any(o for _, o in flags)

    def any_process(self, flag: bool) -> bool:
        """Whether the flag is set in any process."""
        return self.agree(int(flag), False)[0] > 0

    def _missed_validation(self) -> bool:
        """Whether the run was stopped between the end of an epoch and what validates it."""
        epochs, steps = divmod(self.step, self.steps_per_epoch)
        due = self.step > 0 and not steps and self.is_validated(epochs)
        return due and self.accelerator.is_main_process and self.step not in read_validations(self.folder.folder)

    def _load_newest(self) -> Checkpoint | None:
        """Newest good checkpoint, chosen by the first process for all; also checks and saves the configuration."""
        found: list[Path | None] = [None]
        checkpoint = None
        if self.accelerator.is_main_process:
            loaded = self.folder.load_newest()
            if loaded:
                found[0], checkpoint = loaded
        broadcast_object_list(found)
        if found[0] and checkpoint is None:
            checkpoint = read_checkpoint(found[0])
        if checkpoint:
            check_same_run(self.config, checkpoint, self.steps_per_epoch)
        if self.accelerator.is_main_process:
            save_config(self.config, self.config.output / "config.yaml")
        return checkpoint
