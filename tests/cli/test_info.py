"""Descriptions of scans, which need no torch: it alone takes longer to import than a description takes."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests.helpers.scenes import BoxRoom, write_scenes
from tests.scan.recordings import write_frames
from xmask3d.cli.main import run
from xmask3d.resources import REPOSITORY

SCRIPT = "import sys; from xmask3d.cli.main import run; run(sys.argv[1:]); print('torch' in sys.modules)"


@pytest.mark.parametrize("kind", ["recording", "processed"])
def test_frames_are_described_without_torch(kind: str, tmp_path: Path) -> None:
    if kind == "recording":
        write_frames(tmp_path / "scan", BoxRoom(3), 4, color_size=(480, 640), depth_size=(480, 640))
        scan, found = tmp_path / "scan", "4 frames, colour 640 x 480"
    else:
        scan, found = write_scenes(tmp_path, views=2, spacing=0.1) / "scannet_2d" / "scene0000_00", "2 views"
    command = [sys.executable, "-c", SCRIPT, "info", str(scan), "--views", "1"]
    environment = {**os.environ, "PYTHONPATH": str(REPOSITORY)}
    printed = subprocess.run(command, capture_output=True, text=True, check=True, env=environment).stdout
    assert printed.endswith("False\n") and "of" in printed and (found in printed or "1 of 2 views chosen" in printed)


def test_the_bundled_recording_is_described_and_a_folder_of_its_name_comes_first(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    assert run(["info", "example", "--views", "2", "--voxel-size", "0.05"]) == 0
    printed = capsys.readouterr().out
    assert printed.startswith("example: ") and "24 frames, colour 320 x 240" in printed and "warning" not in printed
    write_frames(Path("example"), BoxRoom(3), 4)
    assert run(["info", "example"]) == 0
    printed = capsys.readouterr().out
    assert printed.startswith("example: the one in this folder") and "4 frames" in printed
