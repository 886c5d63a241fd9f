"""Published checkpoints (`.pth.tar`), this package's weight files, and lossless conversion between them.

A published checkpoint is a dict of `epoch`, `state_dict` (names with the prefix `module.`), `optimizer` (AdamW, two
groups) and `best_iou`. A weight file is a safetensors file with this package's names. It also contains everything else
that was published: the two constants under their published names, the optimiser's tensors as `optimizer.<what>.<name>`,
and plain values in its metadata.
"""

from __future__ import annotations

import json
import logging
from collections import OrderedDict
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor

from xmask3d.checkpoints.checkpoint import OPTIMIZER_PREFIX, read_payload
from xmask3d.checkpoints.containers import STATE_KEYS, find_state, plain_values
from xmask3d.checkpoints.names import CONSTANTS, POINT_GROUP, in_published_order, package_name, published_name
from xmask3d.errors import UserError, some
from xmask3d.files import atomic_write
from xmask3d.guarded import parse_json, reading
from xmask3d.models.xmask3d import XMask3D
from xmask3d.seal import UNSEALED, check_seal, sealed

log = logging.getLogger(__name__)

FORMAT = "xmask3d-weights-1"
PREFIX = "module."
# Version of the modules' state that the published programs expect; with an older one they would rename tensors.
MODULE_VERSION = 2


@dataclass
class Layout:
    """Required content of a checkpoint of one network.

    Attributes:
        shapes: shapes by published name in published order, including constants; None if a constant may have any
            length.
        groups: published names of the parameters of the two optimiser groups, in order.
    """

    shapes: dict[str, tuple[int, ...] | None]
    groups: tuple[list[str], list[str]]

    @classmethod
    def of(cls, model: XMask3D) -> Layout:
        """Return the layout of a network, which need not have weights."""
        shapes: dict[str, tuple[int, ...] | None] = {
            published_name(name): tuple(tensor.shape) for name, tensor in model.state_dict().items()
        }
        shapes |= dict.fromkeys(CONSTANTS)
        order = in_published_order(shapes)
        parameters = {published_name(name) for name, _ in model.named_parameters()}
        trained = [name for name in order if name in parameters]
        point = [name for name in trained if name.startswith(POINT_GROUP)]
        others = [name for name in trained if not name.startswith(POINT_GROUP)]
        return cls({name: shapes[name] for name in order}, (point, others))


@dataclass
class OptimizerState:
    """State of the published AdamW.

    Attributes:
        tensors: {published name of the parameter: {"step", "exp_avg", "exp_avg_sq": its value}}; parameters that never
            had a gradient have none.
        groups: options of the two groups, without their parameters.
    """

    tensors: dict[str, dict[str, Tensor | int | float]]
    groups: list[dict[str, Any]]


@dataclass
class PublishedCheckpoint:
    """Content of a published checkpoint.

    Attributes:
        tensors: tensors by published name, without `module.`.
        values: all other plain values: `epoch`, `best_iou`.
        prefix: prefix of the names in the file.
        versions: versions of the modules' state, as torch keeps them beside a state dict.
        optimizer: state of the optimiser; None unless requested.
    """

    tensors: dict[str, Tensor]
    values: dict[str, Any]
    prefix: str = PREFIX
    versions: dict[str, Any] = field(default_factory=dict)
    optimizer: OptimizerState | None = None


def read_published(
    path: Path, layout: Layout, with_optimizer: bool = False, strict: bool = False
) -> PublishedCheckpoint:
    """Read a published checkpoint without executing anything.

    Other things that a training may have stored besides the network are named in the log and left out.

    Args:
        path: file written by `torch.save`: the container above, or tensors under another usual key or alone.
        layout: layout of the network.
        with_optimizer: read the optimiser's state too.
        strict: refuse unknown tensors, and containers other than the one above.

    Raises:
        UserError: the file is missing, damaged or no checkpoint, or tensors are missing or of another shape; the
            message names all of them.
    """
    payload = read_payload(path, strict)
    state = find_state(payload)
    wanted = [*(("epoch", "state_dict", "best_iou") if strict else ()), *(("optimizer",) if with_optimizer else ())]
    lacking = [key for key in wanted if key not in payload]
    if lacking or state is None:
        what = f"{', '.join(lacking)} is missing" if lacking else "it holds no state_dict with tensors"
        raise UserError(f"{path}: not a published checkpoint: {what}")
    prefix = PREFIX if any(name.startswith(PREFIX) for name in state) else ""
    tensors = {name.removeprefix(PREFIX): tensor for name, tensor in state.items()}
    check_tensors(tensors, layout, path, strict)
    beside = {key: value for key, value in payload.items() if key not in (*STATE_KEYS, "optimizer")}
    values, others = plain_values(beside if state is not payload else {})
    if others:
        log.warning("%s: left out what is no plain value: %s", path, some(others))
    return PublishedCheckpoint(
        {name: tensors[name] for name in layout.shapes},
        values,
        prefix,
        dict(getattr(state, "_metadata", {})),
        _read_optimizer(payload["optimizer"], layout, path) if with_optimizer else None,
    )


def write_published(checkpoint: PublishedCheckpoint, path: Path, layout: Layout) -> None:
    """Write the published container.

    Raises:
        UserError: the file cannot be written.
    """
    state: OrderedDict[str, Tensor] = OrderedDict(
        (checkpoint.prefix + name, checkpoint.tensors[name]) for name in layout.shapes
    )
    state._metadata = OrderedDict(checkpoint.versions or _versions(state))  # type: ignore[attr-defined]
    payload = {"epoch": checkpoint.values.get("epoch", 0), "state_dict": state}
    if checkpoint.optimizer is not None:
        payload["optimizer"] = _optimizer_dict(checkpoint.optimizer, layout)
    payload |= {"best_iou": checkpoint.values.get("best_iou", 0.0)} | checkpoint.values
    atomic_write(path, lambda part: torch.save(payload, part))


def read_native(path: Path, layout: Layout) -> PublishedCheckpoint:
    """Read a weight file of this package completely.

    Raises:
        UserError: the file is missing or damaged, or tensors do not fit; the message names all of them.
    """
    if not path.is_file():
        raise UserError(f"{path}: no such file")
    check_seal(path)
    try:
        with safe_open(path, framework="pt") as file:
            metadata = file.metadata() or {}
            found = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
    except (OSError, SafetensorError) as error:
        raise UserError(f"{path}: damaged or not a safetensors file ({error})") from error
    if metadata.get("format") != FORMAT:
        raise UserError(f"{path}: not written by xmask3d convert, so epoch and loss constants are missing")
    published = parse_json(metadata.get("published", ""), path, "a file of xmask3d convert")
    weights = {name: x for name, x in found.items() if not name.startswith(OPTIMIZER_PREFIX)}
    names = {name: name if name in CONSTANTS else _published_or_same(name) for name in weights}
    tensors = {names[name]: tensor for name, tensor in weights.items()}
    check_tensors(tensors, layout, path)
    with reading(path, "a file of xmask3d convert"):
        return PublishedCheckpoint(
            {name: tensors[name] for name in layout.shapes},
            published["values"],
            published["prefix"],
            published["versions"],
            _optimizer_of_native(found, published["groups"]) if published["groups"] else None,
        )


def write_native(checkpoint: PublishedCheckpoint, path: Path) -> None:
    """Write a weight file for `load_weights`, together with everything else in the checkpoint.

    Raises:
        UserError: the file cannot be written, or the checkpoint holds values that are not plain.
    """
    tensors = {name if name in CONSTANTS else package_name(name): x for name, x in checkpoint.tensors.items()}
    optimizer = checkpoint.optimizer
    if optimizer is not None:
        for name, state in optimizer.tensors.items():
            for what, value in state.items():
                tensors[f"{OPTIMIZER_PREFIX}{what}.{package_name(name)}"] = torch.as_tensor(value)
    try:
        published = json.dumps(
            {
                "values": checkpoint.values,
                "prefix": checkpoint.prefix,
                "versions": checkpoint.versions,
                "groups": optimizer.groups if optimizer else [],
            }
        )
    except TypeError as error:
        raise UserError(f"{path}: the checkpoint holds values that are not plain ({error})") from error
    metadata = {"format": FORMAT, "published": published} | UNSEALED
    contiguous = {name: tensor.contiguous() for name, tensor in tensors.items()}
    atomic_write(path, sealed(lambda part: save_file(contiguous, part, metadata)))


def check_tensors(tensors: Mapping[str, Any], layout: Layout, source: Path, strict: bool = True) -> None:
    """Compare names and shapes with a layout.

    Args:
        strict: treat unexpected tensors as an error; otherwise a line of the log names them.

    Raises:
        UserError: tensors are missing, unexpected or of another shape; the message names all of them.
    """
    missing = [name for name in layout.shapes if name not in tensors]
    unexpected = [name for name in tensors if name not in layout.shapes]
    other = []
    for name, shape in layout.shapes.items():
        if name in tensors and not _fits(tensors[name], shape):
            found = tuple(tensors[name].shape) if isinstance(tensors[name], Tensor) else type(tensors[name]).__name__
            other.append(f"{name} ({found}, expected {shape if shape is not None else 'one axis'})")
    if unexpected and not strict:
        log.warning("%s: left out %d unknown tensors: %s", source, len(unexpected), some(unexpected))
    if not (missing or other or (unexpected and strict)):
        return
    kinds = (("missing", missing), ("unexpected", unexpected), ("of another shape", other))
    lines = [f"{len(names)} {kind}: {', '.join(names)}" for kind, names in kinds if names]
    raise UserError(f"{source}: not a checkpoint of this network; " + "; ".join(lines))


def _fits(tensor: Any, shape: tuple[int, ...] | None) -> bool:
    if not isinstance(tensor, Tensor):
        return False
    return tensor.ndim == 1 if shape is None else tuple(tensor.shape) == shape


def _published_or_same(name: str) -> str:
    try:
        return published_name(name)
    except KeyError:
        return name


def _versions(names: Iterable[str]) -> dict[str, dict[str, int]]:
    """Return the version of every module in the path of a name."""
    modules = {"": None}
    for name in names:
        parts = name.split(".")[:-1]
        modules |= {".".join(parts[:end]): None for end in range(1, len(parts) + 1)}
    return {module: {"version": MODULE_VERSION} for module in modules}


def _read_optimizer(content: Any, layout: Layout, path: Path) -> OptimizerState:
    """Read the optimiser's state by name, checked against the layout."""
    sizes = [len(group) for group in layout.groups]
    try:
        groups, state = content["param_groups"], content["state"]
        found = [len(group["params"]) for group in groups]
        indices = [index for group in groups for index in group["params"]]
    except (KeyError, TypeError) as error:
        raise UserError(f"{path}: its optimizer is not the state of an AdamW") from error
    if found != sizes:
        raise UserError(f"{path}: its optimizer has groups of {found} parameters, expected {sizes}")
    names = dict(zip(indices, (name for group in layout.groups for name in group), strict=True))
    wrong = [str(index) for index in state if index not in names]
    for index, values in state.items():
        for what, value in values.items():
            scalar = not isinstance(value, Tensor) or value.ndim == 0
            if index in names and not scalar and tuple(value.shape) != layout.shapes[names[index]]:
                wrong.append(f"{what} of {names[index]}")
    if wrong:
        raise UserError(f"{path}: its optimizer does not fit this network: {', '.join(wrong)}")
    options = [{key: value for key, value in group.items() if key != "params"} for group in groups]
    return OptimizerState({names[index]: dict(values) for index, values in state.items()}, options)


def _optimizer_dict(optimizer: OptimizerState, layout: Layout) -> dict[str, Any]:
    """Return the state in the form of the published program's `torch.optim.AdamW.state_dict`."""
    index = {name: i for i, name in enumerate(name for group in layout.groups for name in group)}
    groups = []
    for options, names in zip(optimizer.groups, layout.groups, strict=True):
        # JSON has no tuples, but the two betas are a tuple.
        plain = {key: tuple(value) if isinstance(value, list) else value for key, value in options.items()}
        groups.append(plain | {"params": [index[name] for name in names]})
    state = {index[name]: optimizer.tensors[name] for name in index if name in optimizer.tensors}
    return {"state": state, "param_groups": groups}


def _optimizer_of_native(found: Mapping[str, Tensor], groups: list[dict[str, Any]]) -> OptimizerState:
    tensors: dict[str, dict[str, Tensor | int | float]] = {}
    # Keys in the order in which torch makes them.
    for what in ("step", "exp_avg", "exp_avg_sq", "max_exp_avg_sq"):
        lead = f"{OPTIMIZER_PREFIX}{what}."
        for name in (name for name in found if name.startswith(lead)):
            value: Tensor | int = found[name]
            if what == "step" and not found[name].is_floating_point():
                value = int(found[name])  # torch before 1.12 stored steps as plain numbers
            tensors.setdefault(published_name(name.removeprefix(lead)), {})[what] = value
    return OptimizerState(tensors, groups)
