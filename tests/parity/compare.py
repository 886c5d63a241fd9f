"""Recorded cases, and how what the package computes is compared with them."""

from __future__ import annotations

import re
import zipfile
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from xmask3d.errors import UserError

FORWARD_TOLERANCE = 1e-4
GRADIENT_TOLERANCE = 1e-5
ROUNDING = 1e-12

_SUFFIX = re.compile(r"_(every\d+|rows_every\d+|first\d+|stats|shape|rowsum|rownorm)$")


class _Arrays(dict[str, np.ndarray]):
    """Arrays of a file; one that is not there is a clear error."""

    def __init__(self, content: Mapping[str, np.ndarray], where: str) -> None:
        super().__init__(content)
        self.where = where

    def __missing__(self, name: str) -> np.ndarray:
        raise UserError(f"{self.where} has no array '{name}'")


@dataclass(frozen=True)
class Case:
    """Arrays of one recorded case: `inputs.npz` and `outputs.npz` of its folder, whose name is the case's."""

    name: str
    inputs: dict[str, np.ndarray]
    outputs: dict[str, np.ndarray]

    @classmethod
    def load(cls, folder: Path) -> Case:
        """Read a folder. Raises `UserError` if a file is missing or unreadable."""
        arrays = []
        for name in ("inputs.npz", "outputs.npz"):
            try:
                with np.load(folder / name, allow_pickle=False) as content:
                    arrays.append(_Arrays(dict(content), f"{folder.name}/{name}"))
            except (OSError, ValueError, EOFError, zipfile.BadZipFile) as error:
                raise UserError(f"{folder / name}: cannot be read ({error})") from error
        return cls(folder.name, *arrays)

    def tensor(self, name: str, dtype: torch.dtype | None = None) -> Tensor:
        """An input; integers as int64, floating numbers in `dtype`, float32 by default."""
        array = self.inputs[name]
        if array.dtype.kind in "iu":
            return torch.from_numpy(array.astype(np.int64))
        return torch.from_numpy(array) if array.dtype == bool else torch.from_numpy(array).to(dtype or torch.float32)

    def number(self, name: str) -> float:
        """A scalar input."""
        return float(self.tensor(name, torch.float64))

    def sizes(self, name: str, default: tuple[int, ...] | None = None) -> tuple[int, ...]:
        """An input that lists sizes; where it is not given, the default if there is one."""
        if default is not None and name not in self.inputs:
            return default
        return tuple(int(size) for size in self.tensor(name).flatten())

    def records(self, start: str) -> bool:
        """Whether anything was recorded under names that start so."""
        return any(name.startswith(start) for name in self.outputs)

    def recorded_parts(self, start: str) -> list[str]:
        """What follows `start` in the names of recorded arrays, without the suffixes that say which part it is."""
        names = (name.removeprefix(start) for name in self.outputs if name.startswith(start))
        return list(dict.fromkeys(base for name in names for base in (name, _SUFFIX.sub("", name))))

    def verify_drawn(self, name: str, array: np.ndarray) -> None:
        """Check an input that is drawn here against its recorded beginning and statistics, as far as there are any.

        Raises:
            UserError: it is another one.
        """
        results = Results()
        results.forward(name, array)
        about = {key: value for key, value in self.inputs.items() if _SUFFIX.sub("", key) == name and key != name}
        wrong = [item.name for item in compare(Case(self.name, {}, about), results) if not item.passed]
        if wrong:
            raise UserError(f"case {self.name}: the input '{name}' drawn here is not the recorded one ({wrong[0]})")


@dataclass(frozen=True)
class Value:
    """What the package computed where something was recorded.

    Attributes:
        array: the whole tensor, whatever was recorded of it.
        tolerance: None asks for equality.
        by_norm: whether errors are measured by the norm of the whole difference relative to that of what was recorded,
            as for gradients, or by the largest difference relative to the largest magnitude.
        scale: what the error of each element is relative to instead, for arrays of quantities of their own.
    """

    array: np.ndarray
    tolerance: float | None = FORWARD_TOLERANCE
    by_norm: bool = False
    scale: np.ndarray | None = None


@dataclass
class Results:
    """Everything a case's runner computed.

    Attributes:
        values: by recorded name, without the suffixes that say which part was recorded.
        left_out: recorded names that the package has no counterpart for, with the reason.
    """

    values: dict[str, Value] = field(default_factory=dict)
    left_out: dict[str, str] = field(default_factory=dict)

    def forward(self, name: str, value: Tensor | np.ndarray | float, tolerance: float = FORWARD_TOLERANCE) -> None:
        """A floating tensor, compared by its largest difference."""
        self.values[name] = Value(_array(value), tolerance)

    def gradient(self, name: str, value: Tensor | None, tolerance: float = GRADIENT_TOLERANCE) -> None:
        """A gradient, compared by the norm of the difference; None counts as zero."""
        self.values[name] = Value(np.zeros(1) if value is None else _array(value), tolerance, by_norm=True)

    def exact(self, name: str, value: Tensor | np.ndarray | int) -> None:
        """Integers, labels or decisions, compared exactly."""
        self.values[name] = Value(_array(value), None)

    def leave_out(self, pattern: str, reason: str, case: Case) -> None:
        """Say why recorded names that match a regular expression are not compared."""
        self.left_out |= {name: reason for name in case.outputs if re.fullmatch(pattern, name)}


@dataclass(frozen=True)
class Comparison:
    """One recorded array against the package's.

    Attributes:
        name: of the recorded array. error: relative; infinite if it cannot be compared. tolerance: 0 for equality.
        note: why it could not be compared.
    """

    name: str
    error: float
    tolerance: float
    note: str = ""

    @property
    def passed(self) -> bool:
        """Whether the error is within the tolerance; NaN is not."""
        return self.error <= self.tolerance


def compare(case: Case, results: Results) -> list[Comparison]:
    """Compare every recorded array; one that the runner neither computed nor left out fails."""
    return [
        _compare(name, recorded, results) for name, recorded in case.outputs.items() if name not in results.left_out
    ]


def _compare(name: str, recorded: np.ndarray, results: Results) -> Comparison:
    base, part = name, ""
    if name not in results.values and (match := _SUFFIX.search(name)):
        base, part = name[: match.start()], match[1]
    if base not in results.values:
        return Comparison(name, np.inf, 0, "recorded, but not computed by the runner")
    value = results.values[base]
    actual = _part(value.array, part)
    # Measures are of the whole: the statistics' own tolerance is that of the tensor.
    tolerance = 0.0 if part == "shape" or value.tolerance is None else value.tolerance
    if actual.size != recorded.size:
        return Comparison(name, np.inf, tolerance, f"sizes differ: {actual.shape}, recorded {recorded.shape}")
    if part == "stats":
        return Comparison(name, _stats_error(actual, recorded, value), tolerance)
    actual = actual.reshape(recorded.shape)
    if tolerance == 0:
        return Comparison(name, float(np.mean(actual != recorded)) if recorded.size else 0.0, 0)
    if value.scale is not None:
        return Comparison(name, float((np.abs(actual - recorded) / value.scale.clip(1e-300)).max()), tolerance)
    return Comparison(name, _error(actual, recorded, value.by_norm), tolerance)


def _part(array: np.ndarray, part: str) -> np.ndarray:
    """The part of a tensor that a suffix names."""
    if part.startswith("first"):
        return array.reshape(-1)[: int(part[5:])]
    if part.startswith("every"):
        return array.reshape(-1)[:: int(part[5:])]
    if part.startswith("rows_every"):
        return array[:: int(part[10:])]
    if part == "shape":
        return np.array(array.shape, np.int64)
    if part == "rowsum":
        return array.sum(-1)
    if part == "rownorm":
        return np.linalg.norm(array, axis=-1)
    if part == "stats":
        return np.array([array.mean(), array.std(), np.linalg.norm(array), array.min(), array.max()])
    return array


def _error(actual: np.ndarray, recorded: np.ndarray, by_norm: bool) -> float:
    actual, recorded = actual.astype(np.float64), recorded.astype(np.float64)
    # Infinities that agree are no difference.
    difference = np.where(actual == recorded, 0, actual - recorded)
    if not recorded.size:
        return 0.0
    if by_norm:
        return _ratio(float(np.linalg.norm(difference)), float(np.linalg.norm(recorded)))
    return _ratio(float(np.abs(difference).max()), float(np.abs(recorded).max()))


def _stats_error(actual: np.ndarray, recorded: np.ndarray, value: Value) -> float:
    """Mean, deviation and extremes relative to the tensor's largest magnitude, or to its norm; the norm to itself."""
    norm = float(recorded[2])
    largest = norm if value.by_norm else float(np.abs(recorded[3:]).max())
    scales = [largest, largest, norm, largest, largest]
    return max(_ratio(abs(float(a - r)), scale) for a, r, scale in zip(actual, recorded, scales, strict=True))


def _ratio(difference: float, scale: float) -> float:
    # What was recorded as zero, but for rounding, has no scale of its own.
    return difference / scale if scale > ROUNDING else difference


def _array(value: Tensor | np.ndarray | float) -> np.ndarray:
    if isinstance(value, Tensor):
        value = value.detach()
        return (value.double() if value.is_floating_point() else value).cpu().numpy()
    return np.asarray(value)
