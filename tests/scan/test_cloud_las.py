"""LAS and LAZ."""

import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import pytest

from xmask3d.errors import UserError
from xmask3d.scan import cloud_las


def test_points_that_unpack_without_end_are_damaged(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def endless(command: list[str], timeout: float, **_: object) -> None:
        raise subprocess.TimeoutExpired(command, timeout)

    monkeypatch.setitem(sys.modules, "laspy", SimpleNamespace())
    monkeypatch.setattr(cloud_las, "_check_header", lambda path: True)
    monkeypatch.setattr(subprocess, "run", endless)
    (tmp_path / "a.laz").write_bytes(b"LASF")
    with pytest.raises(UserError, match=r"a\.laz: cannot be read as LAS \(its compressed points are damaged\)$"):
        cloud_las.read_las(tmp_path / "a.laz", None)
