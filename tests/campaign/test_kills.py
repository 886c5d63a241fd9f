"""Killed at any file operation and started again, every command ends with the files of an undisturbed run.

`pytest tests/campaign/test_kills.py --kills 0` tries every operation in turn.
"""

import hashlib
import json
import shutil
import signal
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import NamedTuple

import pytest
import torch
from safetensors import safe_open
from safetensors.torch import save_file

from tests.campaign.kills import mortal
from tests.data.download.test_fetch import Server
from tests.helpers.archives import tar_of
from tests.helpers.raw_scannet import write_raw_scene, write_table
from tests.helpers.runs import evaluate_run, run, train_run
from tests.helpers.scenes import BoxRoom
from tests.helpers.tiny import write_config
from xmask3d.build import build_model
from xmask3d.checkpoints.checkpoint import read_checkpoint
from xmask3d.cli.main import run as command
from xmask3d.config import load_config

pytestmark = pytest.mark.skipif(not Path("/proc/self/fd").exists(), reason="needs the names of open files")
LOGS = ("train.log", "tensorboard")  # tell of two starts where there were two


class Work(NamedTuple):
    """Something to do that writes files below `root`, and how many of its kills CI tries."""

    root: Path
    call: Callable[..., int | None]
    arguments: tuple
    few: int = 3


def files_of(root: Path) -> dict[str, str]:
    """Digest of every file's content by its path, hidden ones too, but for logs and digests of files."""
    found = {}
    for path in sorted(root.rglob("*")):
        name = str(path.relative_to(root))
        if not any(log in name for log in LOGS):
            found[name] = hashlib.sha256(content_of(path)).hexdigest() if path.is_file() else "folder"
    return found


def content_of(path: Path) -> bytes:
    """Bytes of a file; of a checkpoint its values, as pickles of equal ones may differ; nothing that is a time."""
    if path.name.endswith(".pt.sha256"):
        return b""
    if path.suffix == ".pt":
        return "\n".join(values_of(vars(read_checkpoint(path)))).encode()
    if path.suffix == ".safetensors":  # the order of its metadata is any
        with safe_open(str(path), "pt") as file:
            about = {name: value for name, value in (file.metadata() or {}).items() if name != "seal"}
            tensors = {name: file.get_tensor(name) for name in sorted(file.keys())}
        return "\n".join([str(sorted(about.items())), *values_of(tensors)]).encode()
    if path.name == "summary.json":
        said = json.loads(path.read_text())
        return json.dumps({key: value for key, value in said.items() if key not in ("seal", "seconds")}).encode()
    return path.read_bytes()


def values_of(value: object) -> Iterator[str]:
    if isinstance(value, dict):
        for key in value:
            yield str(key)
            yield from values_of(value[key])
    elif isinstance(value, list | tuple):
        for item in value:
            yield from values_of(item)
    else:
        yield value.numpy().tobytes().hex() if isinstance(value, torch.Tensor) else repr(value)


@pytest.fixture
def training(tmp_path: Path) -> Work:
    """Two epochs of two steps, saved after each, validated twice; encodings and scenes are cached."""
    root = tmp_path / "work"
    cache = ["train.feature_cache=true", f"data.cache={root / 'cache'}"]
    settings = ["train.save_minutes=0", "train.evaluate_every=1", "train.ema=0.9", "data.views_per_scene=2"]
    config = write_config(tmp_path / "tiny")
    captions = tmp_path / "tiny" / "data" / "captions.json"
    known = json.loads(captions.read_text())
    own = {scene: {view: f"{scene} {view}" for view in views} for scene, views in known.items()}
    captions.write_text(json.dumps(own))  # no two are equal, so that each is cached under its view
    return Work(root, train_run, (config, [*settings, *cache, f"output={root / 'run'}"]))


@pytest.fixture
def evaluation(tiny: Path, finished: Path, tmp_path: Path) -> Work:
    root = tmp_path / "work"
    checkpoint = finished / "checkpoints" / "step-00000008.pt"
    return Work(root, evaluate_run, (tiny, ["train.ema=0.9", f"data.cache={root / 'cache'}"], checkpoint, root / "out"))


@pytest.fixture
def segmentation(tmp_path: Path) -> Work:
    """A folder with a result of other words is segmented again."""
    root, config = tmp_path / "work", write_config(tmp_path / "tiny")
    torch.manual_seed(0)
    model = build_model(load_config(config)).model
    weights = tmp_path / "tiny" / "model.safetensors"
    save_file({name: tensor.contiguous() for name, tensor in model.state_dict().items()}, weights)
    config.rename(weights.with_suffix(".yaml"))
    scan = tmp_path / "tiny" / "data" / "scannet_2d" / "scene0002_00"
    return Work(root, segment_twice, (scan, weights, root / "out"))


def segment_twice(scan: Path, weights: Path, out: Path) -> int:
    import xmask3d.segment.labelling as labelling

    labelling.SAVE_EVERY = 0.0
    known = ["--checkpoint", str(weights), "--device", "cpu", "--out", str(out)]
    if not (out.parent / "first").exists():
        assert command(["segment", str(scan), "--query", "bed", "floor", *known]) == 0
        (out.parent / "first").touch()
    return command(["segment", str(scan), "--query", "sofa|couch", "floor", "--instances", *known])


@pytest.fixture
def preparation(tmp_path: Path) -> Work:
    raw = tmp_path / "raw"
    raw.mkdir()
    write_table(raw / "scannetv2-labels.combined.tsv")
    for index, split in enumerate(("train", "val")):
        write_raw_scene(raw, f"scene000{index}_00", BoxRoom(index, 0.2), frames=21)
        (raw / f"{split}.txt").write_text(f"scene000{index}_00\n")
    lists = ["--train-list", str(raw / "train.txt"), "--val-list", str(raw / "val.txt"), "--workers", "1"]
    root = tmp_path / "work"
    return Work(root, command, (["prepare", str(raw), str(root / "out"), *lists],), 8)


@pytest.fixture
def downloading(tmp_path: Path) -> Iterator[Work]:
    """An archive of two files and a link, fetched from a server, unpacked and removed."""
    packed = tar_of(
        tmp_path / "packed.tar.gz",
        [("scannet_3d/train/a.pth", b"a" * 70_000), ("scannet_3d/train/b.pth", bytes(range(256)) * 300)],
    )
    server = Server()
    server.content = packed.read_bytes()
    root = tmp_path / "work"
    yield Work(root, command, (["download", "scannet_3d", "--data", str(root / "data"), "--url", server.url],), 8)
    server.http.shutdown()
    server.http.server_close()
    server.thread.join()


def spread(count: int) -> list[int]:
    """Return numbers below `count` so that the first of them, however many, lie evenly: a run may be stopped."""
    return sorted(range(count), key=lambda number: f"{number:016b}"[::-1])


LONG = [pytest.param(name, marks=pytest.mark.slow) for name in ("training", "evaluation", "segmentation")]


@pytest.mark.parametrize("name", [*LONG, "preparation", "downloading"])
def test_killed_at_any_file_operation(
    name: str, request: pytest.FixtureRequest, tmp_path: Path, capsys: pytest.CaptureFixture
) -> None:
    work: Work = request.getfixturevalue(name)
    journal, log = tmp_path / "journal", tmp_path / "log"
    work.root.mkdir()
    assert run(mortal, work.root, journal, None, work.call, *work.arguments, log=log) == 0, log.read_text()
    operations, expected = journal.read_text().splitlines(), files_of(work.root)
    assert len(operations) > 15 and len(expected) > 2
    kills = request.config.getoption("--kills")
    count = len(operations) if kills == 0 else min(kills or work.few, len(operations))
    chosen = sorted({round((part + 0.5) * len(operations) / count - 0.5) for part in range(count)})
    chosen = [chosen[place] for place in spread(len(chosen))]
    faults = []
    for number in chosen:
        shutil.rmtree(work.root)
        work.root.mkdir()
        log.write_text("")
        code = run(mortal, work.root, journal, number, work.call, *work.arguments, log=log)
        assert code == -signal.SIGKILL, f"operation {number} of {len(operations)}: {log.read_text()}"
        again = run(work.call, *work.arguments, log=log)
        found = files_of(work.root)
        with capsys.disabled():
            print(".", end="", flush=True)
        other = sorted(path for path in found.keys() | expected.keys() if found.get(path) != expected.get(path))
        if again != 0 or other:
            faults.append(f"{number} ({operations[number]}): exit {again}, other files: {other[:5]}")
            with capsys.disabled():
                print(f"\n{faults[-1]}\n{log.read_text()[-300:]}", end="")
    with capsys.disabled():
        print(f"\n{name}: killed at {len(chosen)} of {len(operations)} file operations, {len(faults)} faults", end="")
    assert not faults
