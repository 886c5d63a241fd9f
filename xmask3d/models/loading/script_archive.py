"""Tensors of a TorchScript archive, the format of OpenAI's CLIP, read without running its code.

`torch.jit.load` compiles the code in an archive and runs the `__setstate__` of its classes, which may write files. Here
stand-ins that only keep attributes replace the objects, and the names of parameters and buffers are read from the code
as text.
"""

import pickle
import re
import zipfile
from collections import OrderedDict
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

_CLASS = re.compile(r"^class (\w+)\(Module\):\n((?:[ \t].*\n|\n)*)", re.MULTILINE)
_LISTED = re.compile(r"^\s*__(?:parameters|buffers)__ = \[(.*)\]", re.MULTILINE)
_STORAGES = {
    f"{kind}Storage": getattr(torch, name)
    for kind, name in (
        ("Float", "float32"), ("Half", "float16"), ("BFloat16", "bfloat16"), ("Double", "float64"), ("Long", "int64"),
        ("Int", "int32"), ("Short", "int16"), ("Char", "int8"), ("Byte", "uint8"), ("Bool", "bool"),
    )
}  # fmt: skip
_LISTS = ("build_intlist", "build_tensorlist", "build_doublelist", "build_boollist")


class _Object:
    """Stand-in for a module: its class, and its attributes once they have been read."""

    kind = ""

    def __setstate__(self, state: Any) -> None:
        self.attributes = state if isinstance(state, dict) else {}


class _Reader(pickle.Unpickler):
    """Unpickler that knows tensors, plain values and stand-ins, and refuses everything else."""

    def __init__(self, archive: zipfile.ZipFile, root: str) -> None:
        super().__init__(archive.open(f"{root}/data.pkl"))
        self._archive, self._root = archive, root
        self._known: dict[str, Tensor] = {}

    def find_class(self, module: str, name: str) -> Any:
        if module.startswith("__torch__"):
            return type("_Object", (_Object,), {"kind": f"{module}.{name}"})
        if module == "torch" and name in _STORAGES:
            return name
        if module == "torch.jit._pickle" and name in _LISTS:
            return list
        if (module, name) == ("torch._utils", "_rebuild_tensor_v2"):
            return _tensor
        if (module, name) == ("collections", "OrderedDict"):
            return OrderedDict
        raise pickle.UnpicklingError(f"{module}.{name} is neither a tensor nor a module")

    def persistent_load(self, pid: Any) -> Tensor:
        _, kind, key, _, count = pid
        if key not in self._known:
            entry = self._archive.getinfo(f"{self._root}/data/{key}")
            if entry.compress_type != zipfile.ZIP_STORED:  # torch does not compress
                raise pickle.UnpicklingError("compressed tensors")
            content = bytearray(self._archive.read(entry))
            self._known[key] = torch.frombuffer(content, dtype=_STORAGES[kind]) if content else torch.zeros(0)
            if len(self._known[key]) < count:
                raise pickle.UnpicklingError(f"{len(self._known[key])} numbers of {count}")
        return self._known[key]


def _tensor(storage: Tensor, offset: int, size: tuple, stride: tuple, *_: Any) -> Tensor:
    last = offset + sum((n - 1) * step for n, step in zip(size, stride, strict=True))
    if min((offset, *size, *stride)) < 0 or (0 not in size and last >= len(storage)):
        raise pickle.UnpicklingError(f"a tensor of {size} beyond its storage")
    return storage.as_strided(size, stride, offset)


def load_script_archive(path: Path) -> dict[str, Tensor]:
    """Read the parameters and buffers of the module in a TorchScript archive, under their names.

    Raises:
        Exception: any error that readers raise for a damaged file.
    """
    with zipfile.ZipFile(path) as archive:
        names = archive.namelist()
        root = next(name for name in names if name.endswith("/data.pkl")).removesuffix("/data.pkl")
        listed = {}
        for name in names:
            if name.startswith(f"{root}/code/__torch__") and name.endswith(".py"):
                module = name[len(root) + 6 : -3].replace("/", ".")
                for match in _CLASS.finditer(archive.read(name).decode()):
                    found = " ".join(_LISTED.findall(match[2]))
                    listed[f"{module}.{match[1]}"] = set(re.findall(r'"([^"]*)"', found))
        return _tensors_of(_Reader(archive, root).load(), listed, "", 0)


def _tensors_of(module: Any, listed: dict[str, set[str]], prefix: str, depth: int) -> dict[str, Tensor]:
    if depth > 100:
        raise ValueError("modules without end")
    tensors: dict[str, Tensor] = {}
    for name, value in getattr(module, "attributes", {}).items():
        if isinstance(value, _Object):
            tensors |= _tensors_of(value, listed, f"{prefix}{name}.", depth + 1)
        elif isinstance(value, Tensor) and name in listed.get(module.kind, ()):
            tensors[prefix + name] = value
    return tensors
