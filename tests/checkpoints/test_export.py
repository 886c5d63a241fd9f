"""Exported models: half precision where it is safe, no paths of the training machine, found as the shipped model."""

from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file

from tests.helpers.tiny import write_config
from xmask3d.build import build_model
from xmask3d.checkpoints.checkpoint import Checkpoint, CheckpointFolder
from xmask3d.checkpoints.export import export_model, portable, read_about
from xmask3d.checkpoints.validations import record_validation
from xmask3d.config import load_config, save_config
from xmask3d.errors import UserError
from xmask3d.segment import segmenter
from xmask3d.segment.segmenter import Segmenter, find_source


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run of a tiny model whose frozen networks are named relative to the working folder."""
    root = tmp_path_factory.mktemp("export")
    config = load_config(write_config(root))
    torch.manual_seed(3)
    model = build_model(config).model
    with torch.no_grad():
        for name, buffer in model.named_buffers():
            if name.endswith("running_var"):
                buffer.fill_(3e5)  # more than float16 holds
        next(model.parameters()).view(-1)[0] = 1e6
    config.model.clip, config.model.diffusion = "clip", "diffusion"
    config.output = root / "runs" / "tiny"
    folder = CheckpointFolder(config.output / "checkpoints")
    values = config.model_dump(mode="json")
    folder.save(Checkpoint(7, 2, model.state_dict(), {}, values))
    record_validation(folder.folder, 7, {"hIoU": 0.25})
    save_config(config, config.output / "config.yaml")
    return config.output


def test_weights_come_back(run: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(run.parents[1])
    written = export_model(run, tmp_path / "out")
    trained = build_model(load_config(run / "config.yaml")).model
    loaded = Segmenter.from_checkpoint(tmp_path / "out", device="cpu").model
    original = CheckpointFolder(run / "checkpoints").load_newest()[1].model
    tensors = load_file(written.path)
    assert written.numbers == sum(t.numel() for t in original.values()) and written.size < 4 * written.numbers
    for name, value in loaded.state_dict().items():
        exact = original[name]
        if tensors[name].dtype == torch.float16:
            assert float((value - exact).abs().max()) <= 1e-3 * float(exact.abs().max()) and "running" not in name
        else:
            assert torch.equal(value, exact)
    kept = {name for name, value in tensors.items() if value.dtype == torch.float32}
    assert next(iter(trained.state_dict())) in kept  # a value outside the range of float16 keeps its tensor whole
    assert sum(value.dtype == torch.float16 for value in tensors.values()) > len(tensors) / 2
    about = read_about(written.path)
    assert about["step"] == "7" and about["benchmark"] == "scannet20/B15N4" and "0.25" in about["metrics"]


def test_configuration_travels(run: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(run.parents[1])
    export_model(run, tmp_path / "out", "newest")
    text = (tmp_path / "out" / "config.yaml").read_text()
    assert str(run.parents[1]) not in text
    config = load_config(tmp_path / "out" / "config.yaml")
    assert config.data.root == Path("data/data") and config.output == Path("runs/tiny")
    config.model.clip = str(run / "clip")
    with pytest.raises(UserError, match=r"model\.clip is .* a file of this machine"):
        portable(config)
    with pytest.raises(UserError, match=r"no config\.yaml"):
        export_model(tmp_path, tmp_path / "other")
    assert not (tmp_path / "other").exists()


def test_the_shipped_model_is_the_last_resort(run: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(run.parents[1])
    export_model(run, tmp_path / "shipped")
    monkeypatch.setattr(segmenter, "SHIPPED", tmp_path / "shipped")
    source = find_source(runs=tmp_path / "runs")
    assert source.words == "the shipped small model (scannet20/B15N4, 7 training steps)"
    assert source.config == tmp_path / "shipped" / "config.yaml"
    assert "newest run" in find_source(runs=run.parent).words
    monkeypatch.setattr(segmenter, "SHIPPED", tmp_path / "nothing")
    with pytest.raises(UserError, match="no shipped model"):
        find_source(runs=tmp_path / "runs")
    save_file({"x": torch.zeros(1)}, tmp_path / "plain.safetensors")
    assert read_about(tmp_path / "plain.safetensors") == {} == read_about(tmp_path / "none")
