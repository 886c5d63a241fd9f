"""Folders that cannot be written: data are only read, and an output that must be written is refused in one line."""

import hashlib
import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.helpers.command import run_command
from tests.helpers.permissions import closed
from tests.helpers.raw_scannet import write_raw_scene, write_table
from tests.helpers.scenes import BoxRoom

KNOWN = ("--query", "bed", "floor", "--device", "cpu")


@pytest.fixture(scope="module")
def place(tiny: Path, finished: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """A configuration, a run, a result and a raw scene in a folder where nothing may be written, but in `own`."""
    root = tmp_path_factory.mktemp("read-only")
    shutil.copytree(finished, root / "run")
    raw = root / "raw"
    write_raw_scene(raw, "scene0000_00", BoxRoom(0, 0.2), frames=2)
    write_table(raw / "scannetv2-labels.combined.tsv")
    (raw / "train.txt").write_text("scene0000_00\n")
    scan = tiny.parent / "data" / "scannet_2d" / "scene0002_00"
    assert run_command("segment", scan, *KNOWN, "--model", root / "run", "--out", root / "result") == 0
    (root / "closed").mkdir()
    before = content_of(root)
    with closed(root, tiny.parent):
        yield root
    assert content_of(root) == before


def content_of(folder: Path) -> dict[Path, str]:
    return {path: hashlib.sha256(path.read_bytes()).hexdigest() for path in folder.rglob("*") if path.is_file()}


@pytest.mark.slow
def test_closed_data_runs_and_results_are_read(
    place: Path, tiny: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(place)  # nor may anything be written to the folder that commands are started in, or to the user's
    monkeypatch.setenv("HOME", str(place))
    monkeypatch.delenv("XDG_CACHE_HOME", raising=False)
    scan = tiny.parent / "data" / "scannet_2d" / "scene0002_00"
    settings = ("train.epochs=1", "train.evaluate_every=1", "train.keep_encodings=true", f"data.cache={tmp_path / 'c'}")
    assert run_command("train", tiny, f"output={tmp_path / 'run'}", *settings) == 0
    assert run_command("evaluate", tiny, place / "run" / "checkpoints" / "best.pt", "--out", tmp_path / "e") == 0
    assert run_command("segment", scan, *KNOWN, "--model", place / "run", "--out", tmp_path / "s") == 0
    assert run_command("query", place / "result", "bed", "--out", tmp_path / "q") == 0
    assert run_command("query", place / "result", "bed") == run_command("info", scan) == 0
    assert run_command("caption", tiny, "--model", "template", "--out", tmp_path / "captions.json") == 0
    assert run_command("check", tiny, "--data", "--workers", "1") == 0


@pytest.mark.slow
@pytest.mark.parametrize(
    "arguments",
    [
        "train TINY output=CLOSED/run",
        "train TINY output=CLOSED",
        "train TINY output=OWN/run data.cache=CLOSED",
        "train TINY output=OWN/run data.cache=CLOSED data.workers=1",
        "train TINY output=OWN/run data.cache=CLOSED/.. train.keep_encodings=true",
        "evaluate TINY CLOSED/../run/checkpoints/best.pt --out OWN/e data.cache=CLOSED",
        "evaluate TINY CLOSED/../run/checkpoints/best.pt --out CLOSED",
        "evaluate TINY newest output=CLOSED/../run",
        "segment SCAN --query bed floor --model CLOSED/../run --out CLOSED/new",
        "segment SCAN --query bed floor --model CLOSED/../run --out CLOSED/../result",
        "segment SCAN --query bed floor --model CLOSED/../run --out OWN/s --save-features CLOSED/features",
        "query CLOSED/../result bed --out CLOSED",
        "export CLOSED/../result --to obj",
        "export CLOSED/../result CLOSED/new --to glb",
        "convert CLOSED/../run/checkpoints/best.pt CLOSED/model.safetensors",
        "prepare CLOSED/../raw CLOSED --train-list CLOSED/../raw/train.txt --workers 1",
        "caption TINY --model template --out CLOSED/captions.json",
        "caption TINY data.captions=CLOSED/captions.json --model template",
        "rooms --out CLOSED/rooms --train-rooms 1 --val-rooms 0 --views 1 --furniture procedural --workers 1",
        "download captions --url http://127.0.0.1:1/ --data CLOSED/data",
    ],
)
def test_a_closed_output_is_one_line(
    arguments: str, place: Path, tiny: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    scan = tiny.parent / "data" / "scannet_2d" / "scene0002_00"
    names = {"TINY": tiny, "SCAN": scan, "CLOSED": place / "closed", "OWN": tmp_path}
    for name, path in names.items():
        arguments = arguments.replace(name, str(path))
    assert run_command(*arguments.split()) == 1
    errors = [line for line in capsys.readouterr().err.splitlines() if line.startswith(("error: ", "failed: "))]
    assert len(errors) == 1 and "Permission denied" in errors[0], errors
    assert str(place) in errors[0].replace("/closed/..", "") or str(tiny.parent) in errors[0]
    assert not (tmp_path / "s").exists()  # found before any work
