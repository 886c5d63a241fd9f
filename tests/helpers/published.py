"""Checkpoints in the published format, of any network, with stand-in weights."""

from collections import OrderedDict
from pathlib import Path

import torch
from torch import Tensor

from tests.parity.filler import fill_tensor
from xmask3d.checkpoints.published import Layout


def filled_tensors(layout: Layout, base_classes: int = 15) -> dict[str, Tensor]:
    """Stand-in tensors of every published name."""
    constants = {"binary_loss_func.pos_weight": torch.tensor([0.267]), "criterion.empty_weight": torch.ones(16)}
    constants["criterion.empty_weight"] = torch.tensor([1.0] * base_classes + [0.1])
    tensors = {}
    for name, shape in layout.shapes.items():
        if shape is None:
            tensors[name] = constants[name]
        else:
            whole = name.endswith("num_batches_tracked")
            tensors[name] = torch.tensor(45000) if whole else torch.from_numpy(fill_tensor(name, shape))
    return tensors


def write_released(path: Path, layout: Layout, whole_steps: bool = False, optimizer: bool = True) -> Path:
    """A file as the published training writes it: {epoch, state_dict, optimizer, best_iou}.

    Args:
        whole_steps: count the optimiser's steps in plain numbers, as old versions of torch do.
        optimizer: with the optimiser's state; of all parameters but the last, which never had a gradient.
    """
    state: OrderedDict[str, Tensor] = OrderedDict(
        (f"module.{name}", tensor) for name, tensor in filled_tensors(layout).items()
    )
    state._metadata = OrderedDict({"": {"version": 1}, "module.sem_seg_head": {"version": 2}})  # type: ignore[attr-defined]
    names = [name for group in layout.groups for name in group]
    moments = {}
    for index, name in enumerate(names[:-1]):
        shape = layout.shapes[name]
        assert shape is not None
        moments[index] = {
            "step": 45000 if whole_steps else torch.tensor(45000.0),
            "exp_avg": torch.from_numpy(fill_tensor(f"first.{name}", shape)),
            "exp_avg_sq": torch.from_numpy(fill_tensor(f"second.{name}", shape)).square(),
        }
    groups, start = [], 0
    for rate, group in zip((1e-3, 1e-4), layout.groups, strict=True):
        options = {"lr": rate, "betas": (0.9, 0.999), "eps": 1e-8, "weight_decay": 0.01, "amsgrad": False}
        groups.append({**options, "foreach": None, "params": list(range(start, start + len(group)))})
        start += len(group)
    payload = {"epoch": 150, "state_dict": state}
    if optimizer:
        payload["optimizer"] = {"state": moments, "param_groups": groups}
    torch.save({**payload, "best_iou": 0.0}, path)
    return path
