"""The notebook of the Python interface runs from its first cell to its last."""

import json
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file

from tests.helpers.tiny import write_config
from xmask3d.build import build_model
from xmask3d.config import load_config
from xmask3d.resources import REPOSITORY


def test_notebook_runs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    path = write_config(tmp_path)
    config = load_config(path)
    torch.manual_seed(0)
    model = build_model(config).model
    save_file({k: v.contiguous() for k, v in model.state_dict().items()}, tmp_path / "tiny.safetensors")
    monkeypatch.setenv("XMASK3D_SCAN", str(config.data.root / "scannet_2d" / "scene0000_00"))
    monkeypatch.setenv("XMASK3D_CHECKPOINT", str(tmp_path / "tiny.safetensors"))
    monkeypatch.setenv("XMASK3D_OUT", str(tmp_path / "out"))
    content = json.loads((REPOSITORY / "docs" / "api.ipynb").read_text(encoding="utf-8"))
    assert content["nbformat"] == 4 and len(json.dumps(content)) < 100_000
    names: dict = {}
    for number, cell in enumerate(content["cells"]):
        if cell["cell_type"] == "code":
            assert cell["outputs"] or " = os" in "".join(cell["source"])  # readers see what comes out
            exec(compile("".join(cell["source"]), f"cell {number}", "exec"), names)
    said = capsys.readouterr().out
    assert "scene0000_00: processed ScanNet scene" in said and "points on the floor" in said
    assert (tmp_path / "out" / "scene0000_00" / "scene.html").is_file()
