"""Damage to every format ends in one line or an equal result, in bounded time and memory.

`pytest tests/campaign --mutations 5000 -s` tries more, and prints the tally.
"""

import zlib
from pathlib import Path

import numpy as np
import pytest

from tests.campaign import formats
from tests.campaign.mutations import damages, equal, outcome, run
from tests.helpers.scenes import write_scenes
from xmask3d.data.scannet import SCANNET, ScanNetReader
from xmask3d.data.visibility import Visibility
from xmask3d.errors import UserError
from xmask3d.splits import load_benchmark


@pytest.fixture
def count(request: pytest.FixtureRequest) -> int:
    return request.config.getoption("--mutations")


def judge(name: str, tally: dict, capsys: pytest.CaptureFixture) -> None:
    with capsys.disabled():
        counts = {word: number for word, number in tally.items() if not word.startswith(" ")}
        print(f"\n{name}: {counts}", end="")
    bad = [word for word in tally if word.startswith("  ")]
    assert not bad, f"{name}: {bad[:10]}"


@pytest.mark.parametrize("make", [*formats.OWN, *formats.FOREIGN], ids=lambda make: make.__name__)
def test_damage(make, tmp_path: Path, count: int, capsys: pytest.CaptureFixture) -> None:
    count = count // 10 if make is formats.laz else count  # each is read in a process of its own
    path, read, sealed = make(tmp_path)
    judge(make.__name__, run(path, read, sealed, count, zlib.crc32(make.__name__.encode())), capsys)


def test_damaged_caches_are_made_again(tmp_path: Path, count: int, capsys: pytest.CaptureFixture) -> None:
    """A kept scene and a kept visibility: whatever becomes of their files, the result stays."""
    root = write_scenes(tmp_path / "data", {"train": 1}, views=1, spacing=0.3)
    benchmark, kept = load_benchmark("scannet20/B15N4"), tmp_path / "kept"

    def scene():
        reader = ScanNetReader(SCANNET, root, "train", benchmark, cache=kept)
        read = reader.read_scene("scene0000_00")
        # A kept scene is mapped, and would change with its file.
        return {"points": read.points.copy(), "colors": read.colors.copy(), "labels": read.labels.copy()}

    reader = ScanNetReader(SCANNET, root, "train", benchmark)
    view, whole = reader.read_view("scene0000_00", "0"), reader.read_scene("scene0000_00")
    sources = [root / "train" / "scene0000_00.pth"]
    sources = [path for path in (*sources, *root.rglob("scene0000_00*.pth")) if path.is_file()][:1]
    for name, read in (
        ("kept scene", scene),
        ("visibility", lambda: Visibility(cache=kept).find(whole, view, sources)),
    ):
        before = set(kept.rglob("*.npy"))
        read()
        (path,) = set(kept.rglob("*.npy")) - before
        judge(name, run(path, read, True, count, 3), capsys)


def test_the_harness_tells_the_outcomes_apart() -> None:
    def refuse(text: str):
        raise UserError(text)

    expected = {"a": np.zeros(3), "b": [1, "x"]}
    assert outcome(lambda: {"a": np.zeros(3), "b": [1, "x"]}, expected, True) == "equal"
    assert outcome(lambda: {"a": np.ones(3), "b": [1, "x"]}, expected, True) == "SILENT"
    assert outcome(lambda: {"a": np.ones(3), "b": [1, "x"]}, expected, False) == "other"
    assert outcome(lambda: None, expected, True) == "again"
    assert outcome(lambda: refuse("a.pth: damaged"), expected, True) == "refused"
    assert outcome(lambda: refuse("a.pth:\ndamaged"), expected, True) == "LINES"
    assert outcome(lambda: 1 / 0, expected, True) == "EXCEPTION ZeroDivisionError"
    # Two GiB, since torch or a test before may keep freed memory, which an array of one could be laid in.
    assert outcome(lambda: np.ones(1 << 28).sum(), 0, False) == "MEMORY"
    assert equal(np.float32([np.nan]), np.float32([np.nan])) and not equal(np.zeros(1), np.zeros(1, np.float32))
    made = [damaged for _, damaged in damages(b"0123456789" * 90, 200, 1)]
    assert len(set(made)) > 150 and made == [damaged for _, damaged in damages(b"0123456789" * 90, 200, 1)]
