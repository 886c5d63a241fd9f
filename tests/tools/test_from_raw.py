"""Raw ScanNet recordings to a table of scores, by the commands that a user runs."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

from tests.helpers.raw_scannet import write_raw_scene, write_table
from tests.helpers.scenes import BoxRoom
from tests.helpers.tiny import write_config
from xmask3d.config import REPOSITORY


def tool(name: str, *arguments: object) -> str:
    command = [sys.executable, str(REPOSITORY / "tools" / f"{name}.py"), *map(str, arguments)]
    done = subprocess.run(command, capture_output=True, text=True, cwd=REPOSITORY)
    assert done.returncode == 0, done.stderr
    return done.stdout


@pytest.mark.slow
def test_raw_recordings_become_a_table(tmp_path: Path) -> None:
    raw, data = tmp_path / "raw", tmp_path / "data"
    raw.mkdir()
    write_table(raw / "scannetv2-labels.combined.tsv")
    for index, split in enumerate(("train", "val")):
        write_raw_scene(raw, f"scene000{index}_00", BoxRoom(index, 0.05))
        (raw / f"{split}.txt").write_text(f"scene000{index}_00\n")
    lists = ("--train-list", raw / "train.txt", "--val-list", raw / "val.txt")
    tool("prepare_scannet", raw, data, *lists, "--workers", 1)
    config = write_config(tmp_path, data=data)
    # 4 views an epoch in one step of 4.
    settings = ["train.epochs=1", "train.batch_size=4", "evaluate.rotations=2", "evaluate.templates=['{}','a {}']"]
    assert "views captioned" in tool("caption_views", config, "--model", "template")
    assert "nothing wrong" in tool("check_data", config, "--workers", 1)
    assert "all there" in tool("check_weights", config)
    assert "complete: 1 epochs, 1 steps" in tool("train", config, *settings)
    for protocol in ("default", "reference"):
        output = tmp_path / protocol
        printed = tool("test", config, "newest", f"protocol={protocol}", *settings, "--out", output)
        assert "hIoU" in printed and protocol in printed
        results = json.loads(next(output.rglob("results.json")).read_text())
        assert results["scenes"] == ["scene0001_00"] and 0 <= results["scores"]["fused"]["hiou"] <= 1
