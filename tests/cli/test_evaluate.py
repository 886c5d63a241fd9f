"""The checkpoint that `xmask3d evaluate` takes."""

from pathlib import Path

import pytest

from tests.helpers.command import run_command
from xmask3d.resources import REPOSITORY
from xmask3d.weights import SHIPPED


@pytest.mark.parametrize("named", ["shipped", "folder", "file"])
def test_a_model_by_name_folder_or_file(named: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    weights = SHIPPED / "model.safetensors"
    asked = {"shipped": "shipped", "folder": str(SHIPPED), "file": str(weights)}[named]
    taken: list[Path] = []
    monkeypatch.setattr("xmask3d.engine.evaluate.evaluate", lambda config, checkpoint, *_: taken.append(checkpoint))
    config = str(REPOSITORY / "config/rooms/B15N4.yaml")
    assert run_command("evaluate", config, asked, f"data.root={tmp_path}") == 0
    assert taken == [weights]


def test_a_folder_without_a_model(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    config = str(REPOSITORY / "config/rooms/B15N4.yaml")
    assert run_command("evaluate", config, tmp_path, f"data.root={tmp_path}") == 1
    assert f"{tmp_path / 'checkpoints'}: no checkpoint yet" in capsys.readouterr().err
