"""Conversion between published checkpoints, weight files and checkpoints of a run."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch

from xmask3d.build import make_optimizer
from xmask3d.build_untrained import network_of
from xmask3d.checkpoints.checkpoint import FORMAT, Checkpoint, read_checkpoint, read_payload, save_checkpoint
from xmask3d.checkpoints.names import package_name, published_name
from xmask3d.checkpoints.published import (
    Layout,
    OptimizerState,
    PublishedCheckpoint,
    check_tensors,
    read_native,
    read_published,
    write_native,
    write_published,
)
from xmask3d.config import Config
from xmask3d.errors import UserError
from xmask3d.models.xmask3d import XMask3D
from xmask3d.splits import load_benchmark

# Steps per epoch of the published runs: 19216 samples in steps of 64.
PUBLISHED_STEPS = 300


def convert(
    source: Path,
    target: Path,
    config: Config | None = None,
    *,
    optimizer: bool = False,
    steps_per_epoch: int = PUBLISHED_STEPS,
    strict: bool = False,
) -> PublishedCheckpoint:
    """Convert a checkpoint to the kind given by the target's suffix.

    Args:
        source: a published checkpoint, a weight file (`.safetensors`) written by this function, or a checkpoint of a
            run.
        target: `.safetensors` for a weight file, `.pt` for a checkpoint from which training can resume, otherwise
            (`.pth.tar`) a published checkpoint.
        config: configuration of the network; the published or the run's own by default. Needed for `.pt`.
        optimizer: also convert the optimiser's state.
        steps_per_epoch: steps per epoch of the run to resume.
        strict: refuse a published checkpoint that holds more than was published, see `read_published`.

    Returns:
        The content of the source.

    Raises:
        UserError: see `read_published`; or the target is the source, or the configuration for a `.pt` is missing.
    """
    if target.resolve() == source.resolve():
        raise UserError(f"{target}: source and target are one file")
    to_run = target.suffix == ".pt"
    if to_run and config is None:
        raise UserError(f"{target}: a checkpoint of a run holds the run's configuration; name it with --config")
    checkpoint, model, layout = _read(source, config, optimizer, strict)
    if target.suffix == ".safetensors":
        write_native(checkpoint, target)
    elif not to_run:
        write_published(checkpoint, target, layout)
    else:
        assert config is not None
        run = _to_run(checkpoint, model, config, layout, steps_per_epoch)
        named = target.with_name(f"step-{run.step:08d}.pt")  # training resumes from the highest step
        if target.name != named.name:
            raise UserError(f"{target}: this is step {run.step} of the run; name it {named}")
        save_checkpoint(run, target)
    return checkpoint


def _read(
    source: Path, config: Config | None, optimizer: bool, strict: bool
) -> tuple[PublishedCheckpoint, XMask3D, Layout]:
    if source.suffix == ".safetensors":
        model = network_of(config or Config())
        layout = Layout.of(model)
        checkpoint = read_native(source, layout)
        if optimizer and checkpoint.optimizer is None:
            raise UserError(f"{source}: holds no optimizer; convert the original with --optimizer")
        if not optimizer:
            checkpoint.optimizer = None
        return checkpoint, model, layout
    if read_payload(source).get("format") == FORMAT:
        return _of_run(read_checkpoint(source), source, optimizer)
    model = network_of(config or Config())
    layout = Layout.of(model)
    return read_published(source, layout, optimizer, strict), model, layout


def _of_run(run: Checkpoint, source: Path, optimizer: bool) -> tuple[PublishedCheckpoint, XMask3D, Layout]:
    """Return a run's checkpoint in published form; the constants come from its configuration."""
    config = Config.model_validate(run.config)
    model = network_of(config)
    layout = Layout.of(model)
    weights = run.ema if run.ema and not optimizer else run.model
    tensors = {published_name(name): tensor for name, tensor in weights.items()}
    empty = torch.ones(load_benchmark(config.benchmark).num_base + 1)
    empty[-1] = config.loss.no_object
    tensors["criterion.empty_weight"] = empty
    tensors["binary_loss_func.pos_weight"] = torch.tensor([config.loss.binary_positive_weight])
    check_tensors(tensors, layout, source)
    values = {"epoch": run.step // run.steps_per_epoch, "best_iou": 0.0}
    ordered = {name: tensors[name] for name in layout.shapes}
    state = _published_optimizer(run.optimizer, model) if optimizer else None
    return PublishedCheckpoint(ordered, values, optimizer=state), model, layout


def _to_run(
    checkpoint: PublishedCheckpoint, model: XMask3D, config: Config, layout: Layout, steps_per_epoch: int
) -> Checkpoint:
    if not isinstance(checkpoint.values.get("epoch"), int):
        raise UserError("a checkpoint of a run stands at a step, but the source does not state its epoch")
    if checkpoint.optimizer is None:
        raise UserError("a checkpoint of a run holds the optimizer too; convert with --optimizer")
    train = config.train
    fresh = make_optimizer(model, train.lr_3d, train.lr_others, train.weight_decay).state_dict()
    names = _parameter_names(model)
    state = {
        index: {what: torch.as_tensor(value, dtype=torch.float32) for what, value in values.items()}
        for index, name in enumerate(names)
        if (values := checkpoint.optimizer.tensors.get(published_name(name)))
    }
    weights = {package_name(name): checkpoint.tensors[name] for name in layout.shapes if _is_weight(name)}
    return Checkpoint(
        step=int(checkpoint.values["epoch"]) * steps_per_epoch,
        steps_per_epoch=steps_per_epoch,
        model={name: weights[name] for name in model.state_dict()},
        optimizer={"state": state, "param_groups": fresh["param_groups"]},
        config=config.model_dump(mode="json"),
    )


def _published_optimizer(state: dict[str, Any], model: XMask3D) -> OptimizerState:
    names = _parameter_names(model)
    tensors = {published_name(names[index]): dict(values) for index, values in state["state"].items()}
    groups = [{key: value for key, value in group.items() if key != "params"} for group in state["param_groups"]]
    return OptimizerState(tensors, groups)


def _parameter_names(model: XMask3D) -> list[str]:
    """Return the names of the parameters in the order of the optimiser's indices."""
    names = {parameter: name for name, parameter in model.named_parameters()}
    groups = make_optimizer(model, 1.0, 1.0, 0.0).param_groups
    return [names[parameter] for group in groups for parameter in group["params"]]


def _is_weight(name: str) -> bool:
    try:
        package_name(name)
    except KeyError:
        return False
    return True
