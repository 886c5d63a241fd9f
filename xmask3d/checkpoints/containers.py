"""Reading of other programs' checkpoints, whatever they hold besides tensors, without executing anything.

A checkpoint is a pickle, which may name any class or function. `torch.load` refuses everything but tensors and plain
values. Here harmless stand-ins replace the rest, so that the weights can be read even if a checkpoint holds, for
example, a namespace of options.
"""

from __future__ import annotations

import json
import zipfile
from collections import OrderedDict
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

# Keys under which other programs store the tensors; the innermost one counts.
STATE_KEYS = ("state_dict", "model", "model_state_dict", "model_state")
# Subclasses of dict: their items are read, though not their behaviour.
_DICTS = ("defaultdict", "EasyDict", "CfgNode", "ConfigDict", "AttrDict", "DotDict", "Munch", "Bunch", "Dict")
# A file that names anything of these modules is hostile or damaged, never written by a training.
_REFUSED = ("os", "commands", "posix", "nt", "sys", "subprocess", "shutil", "runpy", "importlib", "socket", "ctypes")
_HARMLESS = ("slice", "range", "frozenset", "object", "list", "dict", "tuple", "int", "float", "str", "bool")


class StandIn(list):
    """Placeholder for an object of an unknown class, which accepts any state from the file and does nothing."""

    def __new__(cls, *_: Any) -> StandIn:
        return super().__new__(cls)

    def __init__(self, *_: Any) -> None:
        super().__init__()

    def __setstate__(self, _: Any) -> None:
        pass

    __hash__ = object.__hash__  # type: ignore[assignment]  # it may be a key


class _NumberType(StandIn):
    """Type of a NumPy number: its code, such as f8, and byte order."""

    code, order = "", "="

    def __init__(self, code: Any = "", *_: Any) -> None:
        super().__init__()
        self.code = code if isinstance(code, str) else ""

    def __setstate__(self, state: Any) -> None:
        self.order = state[1] if isinstance(state, tuple) and state[1:2] in (("<",), (">",)) else "="


def _number(kind: Any = None, data: Any = b"") -> Any:
    """Return the plain number in the bytes of a NumPy scalar."""
    code = getattr(kind, "code", "")
    if code[:1] not in ("f", "i", "u", "b") or not isinstance(data, bytes) or not code[1:].isdigit():
        return StandIn()
    return np.frombuffer(data, np.dtype(kind.order + code))[0].item()


class _Dict:
    def __new__(cls, *_: Any) -> OrderedDict:  # type: ignore[misc]
        return OrderedDict()


def load_inert(path: Path) -> Any:
    """Load a file of `torch.save`, with placeholders for everything that is neither a tensor nor plain.

    Raises:
        Exception: any error that `torch.load` raises for a damaged or hostile file.
    """
    # Files older than torch 1.6 are no archives and the names in them cannot be listed, so only plain ones are read.
    names = torch.serialization.get_unsafe_globals_in_checkpoint(path) if zipfile.is_zipfile(path) else []
    known: list[Callable | tuple[Callable, str]] = [(_stand_in(name), name) for name in names if _is_harmless(name)]
    with torch.serialization.safe_globals(known):
        return torch.load(path, map_location="cpu", weights_only=True)


def _is_harmless(name: str) -> bool:
    module, _, attribute = name.partition(".")
    return attribute in _HARMLESS if module == "builtins" else module not in _REFUSED


def _stand_in(name: str) -> Callable:
    if name in ("numpy.core.multiarray.scalar", "numpy._core.multiarray.scalar"):
        return _number
    if name == "numpy.dtype":
        return _NumberType
    return _Dict if name.rpartition(".")[2] in _DICTS else StandIn


def find_state(payload: dict[str, Any]) -> dict[str, Any] | None:
    """Find the dict of tensors in a container: under a usual key, at any depth, or the container itself."""
    for key in STATE_KEYS:
        inner = payload.get(key)
        if isinstance(inner, dict):
            return find_state(inner)
    return payload if any(isinstance(value, Tensor) for value in payload.values()) or not payload else None


def plain_values(values: dict[str, Any]) -> tuple[dict[str, Any], list[str]]:
    """Divide the content besides the tensors into plain values and the names of everything else."""
    single = {k: v.item() if isinstance(v, Tensor) and v.numel() == 1 else v for k, v in values.items()}
    plain = {key: value for key, value in single.items() if isinstance(key, str) and _is_plain(value)}
    return plain, [str(key) for key in values if key not in plain]


def _is_plain(value: Any) -> bool:
    if isinstance(value, StandIn):
        return False
    if isinstance(value, dict):
        return all(isinstance(key, str) and _is_plain(inner) for key, inner in value.items())
    if isinstance(value, list | tuple):
        return all(map(_is_plain, value))
    try:
        json.dumps(value)
    except TypeError:
        return False
    return True
