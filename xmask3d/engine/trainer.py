"""Training loop of one run: steps, saves, validations and reports."""

import math
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext
from datetime import timedelta
from pathlib import Path
from typing import Any

import numpy as np
import torch
from accelerate import Accelerator
from accelerate.utils import gather_object, set_seed
from torch import Tensor
from tqdm import tqdm

from xmask3d.checkpoints.checkpoint import (
    Checkpoint,
    CheckpointFolder,
    apply_weights,
    random_state,
    restore_random_state,
)
from xmask3d.checkpoints.validations import read_validations, record_validation
from xmask3d.data.batch import Batch
from xmask3d.data.datasets import TrainingViews, ValidationViews
from xmask3d.engine.accelerator import evaluation_arithmetic
from xmask3d.engine.batches import EpochBatches, generator_for, make_loader, translate
from xmask3d.engine.feature_cache import FeatureCache
from xmask3d.engine.logs import LossWindow, RunLog, peak_memory
from xmask3d.engine.optim import AveragedWeights, Schedule, learning_rate_factor, set_learning_rates
from xmask3d.engine.signals import StopSignals
from xmask3d.engine.training_step import TrainingStep
from xmask3d.engine.validate import ValidationSettings, validate
from xmask3d.errors import UserError
from xmask3d.inference.labeller import Labeller
from xmask3d.losses.criterion import Criterion
from xmask3d.metrics.scores import title_of
from xmask3d.models.clip import ClipText
from xmask3d.models.xmask3d import XMask3D
from xmask3d.splits import Benchmark

MAX_SKIPPED = 50  # float16 steps in a row that may overflow, each of which halves the loss scale


class Trainer:
    """Training run: its position, its parts, and its steps.

    The constructor loads nothing heavy, because a run may have nothing left to do; `prepare` adds the model.

    Attributes:
        step: optimiser steps done; the position in the data is `divmod(step, steps_per_epoch)`.
        total_steps: number of steps of the run.
        owes_validation: true if the run was stopped between the end of an epoch and its validation.
        warnings: lines for the log.
        labeller: labels validation views; set after `prepare`.
        fit_gate: fits the region gate with the trained labeller, if the evaluation uses a fitted gate.
    """

    labeller: Labeller
    fit_gate: Callable[[Labeller, FeatureCache | None], list[float] | None] | None = None

    def __init__(
        self,
        *,
        output: Path,
        schedule: Schedule,
        validation: ValidationSettings,
        config_values: dict[str, Any],
        accelerator: Accelerator,
        benchmark: Benchmark,
        criterion: Criterion,
        views: TrainingViews,
        batches: EpochBatches,
        open_validation_views: Callable[[], ValidationViews],
        folder: CheckpointFolder,
        resumed: Checkpoint | None,
        draw_view: Callable[..., np.ndarray] | None = None,
    ) -> None:
        """Keep the parts of the run.

        Args:
            output: folder of the run.
            schedule, validation: settings of the steps and of the validations.
            config_values: the configuration as plain values, which every checkpoint keeps.
            accelerator: accelerator that runs the steps.
            benchmark: classes of the run.
            criterion: losses.
            views, batches: training samples, and the indices of those in each step.
            open_validation_views: opens the views of each validation.
            folder: folder of checkpoints.
            resumed: checkpoint from which the run resumes, or None.
            draw_view: draws a view at validations; no pictures without it.
        """
        self.output, self.schedule, self.validation, self.config_values = output, schedule, validation, config_values
        self.accelerator, self.device, self.benchmark = accelerator, accelerator.device, benchmark
        self.criterion, self.views, self.batches = criterion, views, batches
        self.open_validation_views, self.draw_view = open_validation_views, draw_view
        self.folder, self.resumed, self.warnings = folder, resumed, list[str]()
        self.gate = resumed.gate if resumed else None
        self.steps_per_epoch = batches.steps_per_epoch
        self.total_steps = schedule.epochs * self.steps_per_epoch
        self.step = resumed.step if resumed else 0
        self.owes_validation = self.any_process(self._missed_validation())

    def prepare(
        self, model: XMask3D, clip_text: ClipText, optimizer: torch.optim.Optimizer, ema: float | None = None
    ) -> None:
        """Accept model, text encoder and optimiser, and restore their state from the checkpoint.

        Args:
            ema: decay of averaged weights; None for none.
        """
        resumed, self.model, self.clip_text = self.resumed, model, clip_text
        if self.device.type == "cpu":
            # The last bits of a matrix product depend on its number of rows. A resumed run has to encode captions again
            # that
            # the first run already had, and would round them differently in batches.
            clip_text.batch_size = 1
        if resumed:
            apply_weights(model, resumed.model, "the newest checkpoint")
            optimizer.load_state_dict(resumed.optimizer)
        self.average = AveragedWeights(model, ema) if ema else None
        if resumed and resumed.ema and self.average:
            self.average.load(resumed.ema)
        self.stepper, self.optimizer = self.accelerator.prepare(TrainingStep(model, self.criterion), optimizer)
        if resumed and resumed.scaler and self.accelerator.scaler:
            self.accelerator.scaler.load_state_dict(resumed.scaler)
        self.feature_cache: FeatureCache | None = None
        self.text = clip_text(self.benchmark.base_names)

    def keep_features(self, folder: Path | None, image_size: tuple[int, int]) -> None:
        """Cache the outputs of frozen networks for each view, in memory or in a folder, and log the cache's size."""
        if not self.criterion.needs("masks"):  # apart from the captions, nothing else uses them
            return
        encoders = self.model.image_features, self.model.mask_clip, self.clip_text
        self.feature_cache = FeatureCache(*encoders, folder, self.device)
        tokens = self.needs_tokens(self.schedule.epochs - 1)
        self.accelerator.print(self.feature_cache.announce(self.views.all_views(), image_size, tokens))

    def needs_tokens(self, epoch: int) -> bool:
        """Return True if an epoch needs CLIP's tokens of the images."""
        by_loss = self.criterion.needs("clip", epoch) or self.criterion.needs("regions", epoch)
        return by_loss or self.model.condition == "image"

    def restore_random_state(self) -> None:
        """Seed this process or restore the state of its random numbers, then forget the checkpoint."""
        process, resumed = self.accelerator.process_index, self.resumed
        set_seed(self.schedule.seed + process)
        if resumed and len(resumed.rng) == self.accelerator.num_processes:
            restore_random_state(resumed.rng[process])
        self.resumed = None  # frees its memory

    def run(self, stop: StopSignals) -> int:
        """Take all remaining steps and return the exit code."""
        schedule, silent = self.schedule, not self.accelerator.is_main_process
        self.log = RunLog(self.output, self.step, silent)
        self.log.line(
            f"{'resume at' if self.step else 'start at'} step {self.step} of {self.total_steps} "
            f"({schedule.epochs} epochs of {self.steps_per_epoch}), "
            f"{self.accelerator.num_processes} process(es) on {self.device.type}"
        )
        for warning in self.warnings:
            self.log.line(f"warning: {warning}")
        self.bar = tqdm(
            total=self.total_steps, initial=self.step, unit="step", dynamic_ncols=True, disable=silent or None
        )
        loader = make_loader(self.views, self.batches, self.schedule.workers, self.device.type == "cuda")
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
            else f"complete: {schedule.epochs} epochs, {self.step} steps"
        )
        self.log.close()
        return code

    def run_epoch(self, epoch: int, batches: Iterator[Batch], stop: StopSignals) -> int:
        """Take the remaining steps of an epoch; return the exit code of a signal after saving, or else 0."""
        self.stepper.train()
        self.window = LossWindow()
        last_save = time.monotonic()
        while self.step < (epoch + 1) * self.steps_per_epoch:
            losses = self.take_step(epoch, batches)
            self.step += 1
            self.bar.update()
            self.window.add(losses)
            if self.step % self.schedule.log_every == 0:
                self.report()
            minutes = (time.monotonic() - last_save) / 60
            overdue = self.schedule.save_minutes is not None and minutes > self.schedule.save_minutes
            code, overdue = self.agree(stop.code, overdue)
            if code or (overdue and self.step % self.steps_per_epoch):
                self.save()
                last_save = time.monotonic()
            if code:
                return code
        return 0

    def take_step(self, epoch: int, batches: Iterator[Batch]) -> dict[str, Tensor]:
        """Take one step of the optimiser and return the losses, averaged over its micro-batches."""
        rates = learning_rate_factor(self.step, self.total_steps, self.schedule.warmup_steps)
        set_learning_rates(self.optimizer.param_groups, rates)
        losses: dict[str, Tensor] = {}
        for micro in range(self.schedule.accumulate):
            for name, value in self.backward(epoch, micro, next(batches)).items():
                losses[name] = losses.get(name, 0) + value.detach() / self.schedule.accumulate
        norm = self.accelerator.clip_grad_norm_(self.model.parameters(), self.schedule.clip_grad or math.inf)
        self.check_finite(losses, norm)
        self.optimizer.step()
        self.optimizer.zero_grad(set_to_none=True)
        if self.average:
            self.average.update(self.model)
        return losses | {"gradient_norm": norm}

    def backward(self, epoch: int, micro: int, batch: Batch) -> dict[str, Tensor]:
        """Run forward and backward of one micro-batch; processes exchange gradients after the last one."""
        accelerator, seed = self.accelerator, self.schedule.seed
        kept, host = self.feature_cache, batch
        batch = translate(batch.to(self.device), seed, self.step)
        generator = generator_for(seed, self.step, micro, accelerator.process_index, device=self.device)
        last = micro == self.schedule.accumulate - 1
        with nullcontext() if last else accelerator.no_sync(self.stepper):
            losses = self.stepper(
                batch,
                self.text,
                kept.captions(batch) if kept else self.clip_text(batch.captions),
                epoch,
                generator,
                kept.images(host) if kept else None,
                kept.tokens(host) if kept and self.needs_tokens(epoch) else None,
            )
            accelerator.backward(losses["total"] / self.schedule.accumulate)
        return losses

    def check_finite(self, losses: dict[str, Tensor], gradient_norm: Tensor) -> None:
        """Stop before a step that would spoil the weights.

        A loss that is not finite always stops the run. In float16 an overflowing gradient is normal: the loss scaler
        skips such a step and lowers its scale, and only many of them in a row stop the run.
        """
        # Both numbers in one transfer, since each transfer makes the host wait for the GPU.
        total, norm = torch.stack([losses["total"].float(), gradient_norm.float()]).tolist()
        bad = not math.isfinite(total)
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
        """Save and validate if the schedule says so; return the exit code of a signal, or else 0."""
        schedule, last = self.schedule, epochs == self.schedule.epochs
        evaluate = self.is_validated(epochs)
        if last and self.fit_gate:
            with self.evaluating():
                self.gate = self.fit_gate(self.labeller, self.feature_cache)
            numbers = " ".join(f"{number:.2f}" for number in self.gate or ())
            self.log.line(
                f"gate of regions, weights of head, CLIP and constant: {numbers or 'none to fit, fixed ones'}"
            )
        if last or evaluate or epochs % schedule.save_every == 0 or epochs in schedule.checkpoints:
            self.save()
        return self.validate(epochs, stop) if evaluate else self.agree(stop.code, False)[0]

    def is_validated(self, epochs: int) -> bool:
        """Return True if a validation follows after this number of epochs."""
        every = self.schedule.evaluate_every
        return bool(every) and (epochs == self.schedule.epochs or epochs % every == 0)

    def validate(self, epochs: int, stop: StopSignals) -> int:
        """Score some views of every scene with the averaged weights, if there are any.

        Returns:
            Exit code of a signal, which leaves the validation to the next start, or 0.
        """
        views = self.open_validation_views()
        views.set_epoch(epochs - 1)
        with self.evaluating():
            result = validate(self.labeller, views, self.benchmark, self.validation, stop, self.draw_view)
        if result is None:
            return self.agree(stop.code, False)[0]
        metrics, picture = result
        self.log.scalars({f"validation/{name}": value for name, value in metrics.items()}, self.step)
        every, last = self.schedule.picture_every, epochs == self.schedule.epochs
        if picture is not None and every and (last or epochs % every == 0):
            self.log.picture("validation", picture, self.step)
        best = self.validation.headlines[0]
        self.log.line(
            f"epoch {epochs}, {self.validation.views_per_scene} view(s) a scene: "
            f"{title_of(best)} fused {metrics[f'fused_{best}']:.4f} "
            f"(base {metrics['fused_miou_base']:.4f}, novel {metrics['fused_miou_novel']:.4f}), "
            f"2D {metrics[f'2d_{best}']:.4f}, 3D {metrics[f'3d_{best}']:.4f}, "
            f"binary accuracy {metrics['binary_accuracy']:.4f}"
        )
        if self.accelerator.is_main_process:
            # The record is written last, so that a run killed before it validates again and marks the best again.
            self.folder.mark_best(self.step, metrics[f"fused_{best}"])
            record_validation(self.folder.folder, self.step, metrics)
        return self.agree(stop.code, False)[0]

    @contextmanager
    def evaluating(self) -> Iterator[None]:
        """Use the averaged weights, if there are any, and restore the state of random numbers afterwards."""
        state = random_state()
        averaged = self.average.applied(self.model) if self.average else nullcontext()
        with averaged, evaluation_arithmetic(self.criterion.reference):
            yield
        restore_random_state(state)

    def save(self) -> None:
        """Save the complete state; the first process writes, the others send it their random state."""
        states = gather_object([random_state()])
        if not self.accelerator.is_main_process:
            return
        self.folder.save(
            Checkpoint(
                step=self.step,
                steps_per_epoch=self.steps_per_epoch,
                model=self.model.state_dict(),
                optimizer=self.optimizer.state_dict(),
                config=self.config_values,
                ema=self.average.state if self.average else None,
                scaler=self.accelerator.scaler.state_dict() if self.accelerator.scaler else None,
                rng=states,
                gate=self.gate,
            )
        )

    def report(self) -> None:
        """Log the means since the last report, over all processes."""
        values, seconds = self.window.means(self.accelerator)
        rate = self.schedule.batch_size / seconds
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
        left = timedelta(seconds=round((self.total_steps - self.step) * seconds))
        self.log.line(
            f"step {self.step}/{self.total_steps} loss {values['total']:.3f} ({shown}) "
            f"{rate:.2f} samples/s, {left} left"
        )
        self.window = LossWindow()

    def agree(self, code: int, overdue: bool) -> tuple[int, bool]:
        """Return the largest exit code of all processes, and True if any of them is due to save."""
        if self.accelerator.num_processes == 1:
            return code, overdue
        flags = gather_object([(code, overdue)])
        return max(c for c, _ in flags), any(o for _, o in flags)

    def any_process(self, flag: bool) -> bool:
        """Return True if the flag is set in any process."""
        return self.agree(int(flag), False)[0] > 0

    def _missed_validation(self) -> bool:
        """Return True if the run was stopped between the end of an epoch and its validation."""
        epochs, steps = divmod(self.step, self.steps_per_epoch)
        due = self.step > 0 and not steps and self.is_validated(epochs)
        return due and self.accelerator.is_main_process and self.step not in read_validations(self.folder.folder)
