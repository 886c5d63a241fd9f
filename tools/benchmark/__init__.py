"""Timings of the parts of the system, each measurement in a process of its own.

A part is a module of this package with two functions and a tuple: `cases(request)` lists what is measured,
`prepare(case)` makes one case ready in the process that measures it, and `CONTENDERS` names those it can be compared
with. To add a part, write its module and name it in `PARTS`.
"""

from importlib import import_module
from types import ModuleType

PARTS = ("sparse", "features", "decoder", "sample", "step", "scene")


def load_part(name: str) -> ModuleType:
    """Return the module of a part."""
    return import_module(f"tools.benchmark.{name}")
