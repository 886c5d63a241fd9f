"""Choice of the fastest sparse back end on a GPU, timed once and remembered in the user's cache folder."""

import functools
import json
import time
from collections.abc import Callable, Iterable
from contextlib import suppress
from importlib.metadata import packages_distributions, version
from importlib.util import find_spec
from pathlib import Path

import torch
from torch import Tensor

from xmask3d.errors import UserError, WriteError
from xmask3d.files import atomic_write
from xmask3d.guarded import read_object
from xmask3d.resources import CACHE

MODULES = {"torch": "torch", "spconv": "spconv", "minkowski": "MinkowskiEngine"}
CHOICES = CACHE / "sparse_backends.json"
SIDE, CHANNELS = 160, 96  # voxels along a side of the timed square, and channels: as many as on a finest level
RUNS = 5


@functools.cache
def fastest_backend(device: torch.device) -> str:
    """Return the fastest back end installed for a CUDA device; `torch` if there is no other."""
    installed = [name for name, module in MODULES.items() if find_spec(module)]
    if installed == ["torch"]:
        return "torch"
    machine = torch.cuda.get_device_name(device)
    key = ", ".join([machine, *(f"{name} {_version(name)}" for name in installed)])
    return remembered(CHOICES, key, lambda: quickest(installed, functools.partial(_seconds, device=device)))


def remembered(path: Path, key: str, choose: Callable[[], str]) -> str:
    """Return the choice that a file holds for a key; if there is none, choose and write it to the file."""
    known: dict[str, str] = {}
    with suppress(UserError):
        known = {key: name for key, name in read_object(path).items() if isinstance(name, str)}
    if known.get(key) in MODULES:
        return known[key]
    known[key] = choose()
    with suppress(WriteError):  # the next process measures again
        atomic_write(path, json.dumps(known, indent=1))
    return known[key]


def quickest(names: Iterable[str], seconds: Callable[[str], float]) -> str:
    """Return the quickest back end; one that fails, such as a wheel for another CUDA version, never wins."""
    found = {}
    for name in names:
        try:
            found[name] = seconds(name)
        except (UserError, RuntimeError, ImportError, AssertionError):
            continue
    return min(found, key=lambda name: found[name], default="torch")


def _seconds(name: str, device: torch.device) -> float:
    """Time a 3x3x3 convolution, forward and backward, with its kernel maps; return the best of several runs."""
    from xmask3d.sparse.backend import coordinate_manager

    generator = torch.Generator().manual_seed(0)
    coordinates = _wavy_floor().to(device)
    features = torch.randn(len(coordinates), CHANNELS, generator=generator).to(device).requires_grad_()
    weight = torch.randn(27, CHANNELS, CHANNELS, generator=generator).to(device).requires_grad_()
    best = float("inf")
    for _ in range(RUNS):
        torch.cuda.synchronize(device)
        start = time.perf_counter()
        manager = coordinate_manager(coordinates, name)
        manager.convolve(manager.arrange(features), weight, 1, 3).sum().backward()
        torch.cuda.synchronize(device)
        best = min(best, time.perf_counter() - start)
    return best


def _wavy_floor() -> Tensor:
    """Return voxels of a surface, SIDE^2 x 4 rows (batch, x, y, z), with about as many neighbours as in a scan."""
    x, y = (axis.flatten() for axis in torch.meshgrid(torch.arange(SIDE), torch.arange(SIDE), indexing="ij"))
    z = (4 * torch.sin(x / 7) + 4 * torch.cos(y / 5)).long()
    return torch.stack([torch.zeros_like(x), x, y, z], 1).int()


def _version(name: str) -> str:
    """Return the version of a back end's package, whose wheel may have another name, such as spconv-cu126."""
    packages = packages_distributions().get(MODULES[name], [])
    return " ".join(f"{package} {version(package)}" for package in sorted(set(packages)))
