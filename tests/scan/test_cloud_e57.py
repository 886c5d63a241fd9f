"""E57 by pye57, which stands in here by a module of the same functions."""

import sys
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest

from xmask3d.errors import UserError
from xmask3d.scan.clouds import read_cloud


class File:
    """File of two scans of 100 points."""

    scan_count = 2

    def __init__(self, path: str) -> None:
        if "bad" in path:
            raise RuntimeError("bad\nfile")
        self.count = 10**12 if "huge" in path else 100

    def get_header(self, index: int) -> SimpleNamespace:
        return SimpleNamespace(point_count=self.count)

    def read_scan(self, index: int, *, colors: bool, ignore_missing_fields: bool) -> dict[str, np.ndarray]:
        assert colors and ignore_missing_fields
        places = np.random.default_rng(index).uniform(0, 3, (100, 3))
        names = ("Red", "Green", "Blue")
        tones = np.random.default_rng(9).integers(0, 255, (100, 3), np.uint8)
        return {f"cartesian{axis}": places[:, i] for i, axis in enumerate("XYZ")} | {
            f"color{name}": tones[:, i] for i, name in enumerate(names)
        }


def write(path: Path) -> Path:
    path.write_bytes(bytes(1000))
    return path


def test_scans_are_joined(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "pye57", SimpleNamespace(E57=File))
    cloud = read_cloud(write(tmp_path / "a.e57"))
    first, second = (np.random.default_rng(index).uniform(0, 3, (100, 3)) for index in range(2))
    np.testing.assert_allclose(cloud.points, np.concatenate([first, second]), rtol=1e-6)
    np.testing.assert_array_equal(cloud.colors[100:], np.random.default_rng(9).integers(0, 255, (100, 3), np.uint8))
    assert cloud.notes == ["2 scans of the file joined by their poses"]


@pytest.mark.parametrize(("name", "reason"), [("bad", "bad file"), ("huge", "points in 1000 bytes")])
def test_damage_is_one_line(name: str, reason: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "pye57", SimpleNamespace(E57=File))
    with pytest.raises(UserError, match=rf"{name}\.e57: cannot be read as E57 .*{reason}"):
        read_cloud(write(tmp_path / f"{name}.e57"))


def test_the_package_is_named_where_it_is_missing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "pye57", None)
    with pytest.raises(UserError, match=r"xmask3d\[formats\]"):
        read_cloud(write(tmp_path / "a.e57"))
