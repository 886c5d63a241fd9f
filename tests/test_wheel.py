"""A wheel, installed into a new environment, does everything from a folder that has no checkout near it."""

import os
import shutil
import subprocess
import sys
import sysconfig
import venv
import zipfile
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from tests.helpers.scenes import BoxRoom
from xmask3d.resources import REPOSITORY
from xmask3d.visualize.cloud import write_ply

pytestmark = [pytest.mark.slow, pytest.mark.timeout(900)]

Run = Callable[..., str]

OPTIONAL = "tensorboard embreex viser matplotlib laspy OpenEXR pye57 lzfse transformers"
"""Modules that the core does without."""


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Build it from a copy of what the repository holds, and of data that somebody put into `dataset/`."""
    source, out = tmp_path_factory.mktemp("source"), tmp_path_factory.mktemp("wheel")
    leave = shutil.ignore_patterns("__pycache__", "*.npz", "*.pth")
    for folder in ("xmask3d", "config"):
        shutil.copytree(REPOSITORY / folder, source / folder, ignore=leave)
    for file in ("pyproject.toml", "setup.py", "README.md"):
        shutil.copy(REPOSITORY / file, source)
    (source / "dataset" / "scannet_3d").mkdir(parents=True)
    (source / "dataset" / "scannet_3d" / "scene.yaml").touch()
    for path in (REPOSITORY / "dataset").glob("*.yaml"):
        shutil.copy(path, source / "dataset")
    build = [sys.executable, "-m", "pip", "wheel", "-q", "--no-deps", "--no-build-isolation", "-w", out, source]
    subprocess.run([str(word) for word in build], check=True)
    return next(out.glob("xmask3d-*.whl"))


@pytest.fixture(scope="module")
def run(wheel: Path, tmp_path_factory: pytest.TempPathFactory) -> Run:
    """Run the console script of a new environment, which borrows the packages of this one, in a folder of its own."""
    home, place = tmp_path_factory.mktemp("environment"), tmp_path_factory.mktemp("anywhere")
    venv.create(home, with_pip=False)
    scripts = home / ("Scripts" if os.name == "nt" else "bin")
    python = scripts / Path(sys.executable).name
    pip = [sys.executable, "-m", "pip", "--python", python, "install", "-q", "--no-deps", "--no-index", wheel]
    subprocess.run([str(word) for word in pip], check=True)
    own = Path(sysconfig.get_path("purelib", vars={"base": str(home), "platbase": str(home)}))
    borrowed = [path for path in sys.path if Path(path).name in ("site-packages", "dist-packages")]
    (own / "borrowed.pth").write_text("\n".join(borrowed))
    (own / "sitecustomize.py").write_text(
        "import os, sys\nsys.modules.update(dict.fromkeys(os.environ.get('MISSING', '').split()))\n"
    )
    environment = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}
    environment |= {"OMP_NUM_THREADS": "1", "PYTHONSAFEPATH": "1"}

    def run_in_place(*arguments: object, missing: str = "", until: str = "", code: int = 0) -> str:
        command = [str(scripts / "xmask3d"), *map(str, arguments)]
        with subprocess.Popen(
            command, cwd=place, env=environment | {"MISSING": missing}, text=True, encoding="utf-8",
            stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
        ) as process:  # fmt: skip
            printed = ""
            for line in process.stdout or ():
                printed += line
                if until and until in line:
                    process.terminate()
                    return printed
        assert process.returncode == code, printed
        return printed

    points = BoxRoom(1, spacing=0.1).points
    write_ply(place / "room.ply", points, np.full(points.shape, 128, np.uint8))
    where = [str(python), "-c", "import xmask3d; print(xmask3d.__file__)"]
    found = subprocess.run(where, cwd=place, env=environment, text=True, capture_output=True, check=True).stdout
    assert str(own) in found  # the checkout cannot be imported
    return run_in_place


def test_the_wheel_holds_configurations_and_class_lists_and_no_data(wheel: Path) -> None:
    names = set(zipfile.ZipFile(wheel).namelist())
    for folder, inside in (("config", "config_files"), ("dataset", "class_lists")):
        here = {path.relative_to(REPOSITORY / folder).as_posix() for path in (REPOSITORY / folder).rglob("*.yaml")
                if folder == "config" or path.parent.name == folder}  # fmt: skip
        prefix = f"xmask3d/{inside}/"
        assert {name.removeprefix(prefix) for name in names if name.startswith(prefix)} == here
    assert {name.split("/")[0] for name in names if ".dist-info/" not in name} == {"xmask3d"}


def test_a_scan_is_described_labelled_asked_and_shown(run: Run) -> None:
    assert "24 frames" in run("info", "example", "--voxel-size", "0.05", missing=OPTIONAL)
    assert "points" in run("info", "room.ply", "--unit", "m", missing=OPTIONAL)
    labelled = run("segment", "room.ply", "--classes", "scannet20", "--unit", "m", missing=OPTIONAL)
    assert "the shipped small model" in labelled
    assert "answered in" in run("query", "segmented/room", "red chair", "floor", missing=OPTIONAL)
    assert "http://127.0.0.1:" in run("view", "segmented/room", "--port", 8090, until="http://")
    assert "pip install 'xmask3d[view]'" in run("view", "segmented/room", missing="viser", code=1)


def test_rooms_are_made_trained_on_and_evaluated(run: Run) -> None:
    few = ["--train-rooms", 1, "--val-rooms", 1, "--views", 2, "--furniture", "procedural", "--workers", 1]
    assert "pip install 'xmask3d[rooms]'" in run("rooms", "--out", "data/rooms", *few, missing="embreex", code=1)
    assert "data/rooms" in run("rooms", "--out", "data/rooms", *few)
    trained = run("train", "rooms/fast", "train.epochs=1", "data.workers=0", missing=OPTIONAL)
    assert "pip install 'xmask3d[train]'" in trained and "complete: 1 epochs" in trained
    table = run("evaluate", "rooms/fast", "newest", "train.epochs=1", missing=OPTIONAL)
    assert "hIoU" in table and "pip install 'xmask3d[plots]'" in table
    assert "did you mean 'rooms/B15N4'?" in run("train", "rooms/B15N5", code=1)
