"""Reader of the pickles in scene files: tuples of plain numpy arrays, read without executing anything.

A pickle is a program. The functions by which it makes numpy's arrays are replaced by functions of this file, which only
record their arguments. Arrays are made at the end, from bytes of exactly the right length and with plain number types.
numpy's own functions trust their arguments: an object array without its flag turns bytes of the file into pointers, and
a field outside its item reads foreign memory.
"""

import codecs
import math
import pickle
import pickletools
from collections.abc import Callable
from typing import Any, BinaryIO, NoReturn

import numpy as np

MAX_STEPS = 10_000
"""Largest number of opcodes and memo entries. A scene has about 60; memory is allocated up to the highest index."""

_PLAIN_STATE = (None, None, None, -1, -1, 0)  # no subarray, names or fields; default size and alignment; no flags


def unpickle(stream: BinaryIO, checked: bool = False) -> Any:
    """Read one pickle of plain values and number arrays.

    Args:
        stream: stream at the start of the pickle; afterwards it is at the end.
        checked: the same pickle was read before, so its length need not be checked again.

    Raises:
        Exception: nearly any kind if the file is damaged; `pickle.UnpicklingError` for refused content.
    """
    if not checked:
        start = stream.tell()
        _check_length(stream)
        stream.seek(start)
    return _finish(_ArrayUnpickler(stream).load())


def _check_length(stream: BinaryIO) -> None:
    for count, (opcode, argument, _) in enumerate(pickletools.genops(stream)):
        far = opcode.name in ("PUT", "BINPUT", "LONG_BINPUT") and int(argument or 0) > MAX_STEPS
        if far or count > MAX_STEPS:
            raise pickle.UnpicklingError("more than arrays")


class _Maker:
    """Function that a pickle may call but not change, since it has no attributes and takes no state."""

    __slots__ = ("_make",)

    def __init__(self, make: Callable) -> None:
        self._make = make

    def __call__(self, *arguments: Any) -> Any:
        return self._make(*arguments)

    def __setstate__(self, state: Any) -> NoReturn:
        raise pickle.UnpicklingError("state of a function")


class _Type:
    """Plain number type, whose byte order a pickle sets after making it."""

    __slots__ = ("dtype",)

    def __init__(self, code: Any, *_: Any) -> None:
        if not isinstance(code, str) or code[:1] not in "biuf" or code[1:] not in ("1", "2", "4", "8"):
            raise pickle.UnpicklingError(f"arrays of type {code!r:.40} are not allowed")
        self.dtype = np.dtype(code)

    def __setstate__(self, state: Any) -> None:
        plain = isinstance(state, tuple) and len(state) == 8 and state[0] == 3 and state[2:] == _PLAIN_STATE
        if not plain or state[1] not in ("<", ">", "|", "="):
            raise pickle.UnpicklingError("a type with more than a byte order is not allowed")
        self.dtype = self.dtype.newbyteorder(state[1])


class _Array:
    """Array whose bytes may come later."""

    __slots__ = ("value",)

    def __init__(self, value: np.ndarray | None = None) -> None:
        self.value = value

    def __setstate__(self, state: Any) -> None:
        if not isinstance(state, tuple) or len(state) != 5 or state[0] != 1:
            raise pickle.UnpicklingError("not the state of an array")
        _, shape, kind, fortran, content = state
        self.value = _array(content, kind, shape, "F" if fortran else "C")


def _array(content: Any, kind: Any, shape: Any, order: Any) -> np.ndarray:
    if not isinstance(kind, _Type) or not isinstance(content, bytes | bytearray) or order not in ("C", "F"):
        raise pickle.UnpicklingError("an array of other than plain numbers")
    if not isinstance(shape, tuple) or len(shape) > 8 or not all(type(side) is int and side >= 0 for side in shape):
        raise pickle.UnpicklingError("an array without a shape")
    if len(content) != math.prod(shape) * kind.dtype.itemsize:
        raise pickle.UnpicklingError(f"{len(content)} bytes for an array of {shape} {kind.dtype}")
    if kind.dtype.kind == "b":  # numpy relies on booleans being 0 or 1
        return (np.frombuffer(content, np.uint8) != 0).reshape(shape, order=order)
    if isinstance(content, bytearray):
        return np.frombuffer(content, kind.dtype).reshape(shape, order=order)
    array = np.empty(0, kind.dtype)
    array.__setstate__((1, shape, kind.dtype, order == "F", content))  # uses the bytes without a copy
    return array


def _scalar(kind: Any, content: Any) -> _Array:
    return _Array(_array(content, kind, (), "C"))


def _from_buffer(content: Any, kind: Any, shape: Any, order: Any) -> _Array:
    return _Array(_array(content, kind, shape, order))


def _latin1_bytes(text: Any, encoding: Any) -> bytes:
    """Encode bytes as pickle protocol 2 stores them; no other codec is allowed."""
    if encoding != "latin1" or not isinstance(text, str):
        raise pickle.UnpicklingError(f"codec {encoding!r:.40} is not allowed")
    return codecs.encode(text, "latin1")


_ALLOWED: dict[str, Callable] = {
    "numpy.dtype": _Type,
    "numpy.ndarray": lambda *_: _Array(),
    "_codecs.encode": _latin1_bytes,
}
for _core in ("numpy.core", "numpy._core"):
    _ALLOWED[f"{_core}.multiarray._reconstruct"] = lambda *_: _Array()
    _ALLOWED[f"{_core}.multiarray.scalar"] = _scalar
    _ALLOWED[f"{_core}.numeric._frombuffer"] = _from_buffer


class _ArrayUnpickler(pickle.Unpickler):
    """Unpickler of plain containers and records of arrays that refuses everything else in a pickle."""

    def find_class(self, module: str, name: str) -> Any:
        if f"{module}.{name}" not in _ALLOWED:
            raise pickle.UnpicklingError(f"{module}.{name} is not allowed")
        return _Maker(_ALLOWED[f"{module}.{name}"])

    def persistent_load(self, pid: Any) -> NoReturn:
        raise pickle.UnpicklingError("torch tensors instead of numpy arrays")


def _finish(value: Any) -> Any:
    """Return the value with real arrays. Nested containers are refused, since few bytes could expand to very many."""
    if isinstance(value, tuple | list):
        return tuple(_finished_entry(entry) for entry in value)
    return value


def _finished_entry(value: Any) -> Any:
    if isinstance(value, _Array):
        if value.value is None:
            raise pickle.UnpicklingError("an array without content")
        return value.value
    if value is None or isinstance(value, bool | int | float):
        return value
    raise pickle.UnpicklingError(f"a {type(value).__name__.strip('_')} among the arrays")
