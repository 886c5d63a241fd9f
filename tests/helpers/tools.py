"""Commands of `tools/` run in this process, which saves the time of their imports."""

import runpy
import sys

import pytest

from xmask3d.config import REPOSITORY


def run_tool(monkeypatch: pytest.MonkeyPatch, name: str, *arguments: object) -> int | str | None:
    """Run `tools/<name>.py` with these arguments; returns its exit code."""
    path = str(REPOSITORY / "tools" / f"{name}.py")
    monkeypatch.setattr(sys, "argv", [path, *map(str, arguments)])
    with pytest.raises(SystemExit) as ended:
        runpy.run_path(path, run_name="__main__")
    return ended.value.code
