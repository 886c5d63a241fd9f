"""Exported models: half precision where it is safe, no paths of the training machine, a card."""

import json
import shutil
from pathlib import Path

import pytest
import torch
import yaml
from safetensors.torch import load_file, save_file

from tests.helpers.tiny import write_config
from xmask3d.build import build_model
from xmask3d.checkpoints.checkpoint import Checkpoint, CheckpointFolder
from xmask3d.checkpoints.export import export_model, portable, read_about
from xmask3d.checkpoints.model_card import model_card
from xmask3d.checkpoints.validations import record_validation
from xmask3d.config import load_config, save_config
from xmask3d.errors import UserError
from xmask3d.files import sha256_of
from xmask3d.segment.segmenter import Segmenter


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
    loaded = Segmenter.from_pretrained(tmp_path / "out", device="cpu").model
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


def test_facts_of_other_files_are_none(tmp_path: Path) -> None:
    save_file({"x": torch.zeros(1)}, tmp_path / "plain.safetensors")
    assert read_about(tmp_path / "plain.safetensors") == {} == read_about(tmp_path / "none")


@pytest.mark.parametrize(
    "about", [{"metrics": "{"}, {"metrics": "[3]"}, {"evaluation": "[" * 100_000}, {"evaluation": '{"scenes": 1}'}]
)
def test_facts_that_somebody_else_wrote_are_one_line(run: Path, about: dict[str, str]) -> None:
    with pytest.raises(UserError, match="metadata of the model: damaged, or not scores") as refusal:
        model_card(load_config(run / "config.yaml"), about, 1)
    assert "\n" not in str(refusal.value)


def test_card_has_data_protocol_scores_and_licence(run: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(run.parents[1])
    digest = sha256_of(run / "checkpoints" / "step-00000007.pt")
    table = {"checkpoint_sha256": digest, "scenes": ["a", "b"], "views": 40, "protocol": "reference"}
    folder = tmp_path / "run"
    shutil.copytree(run, folder)
    for name, content in (("x", {**table, "scores": {"fused": {"hiou": 0.5}}}), ("damaged", [])):
        (folder / "evaluation" / name).mkdir(parents=True)
        (folder / "evaluation" / name / "results.json").write_text(json.dumps(content))
    export_model(folder, tmp_path / "out")
    card = (tmp_path / "out" / "README.md").read_text()
    front = yaml.safe_load(card.split("---")[1])
    assert front["license"] == "mit" and front["library_name"] == "xmask3d"
    assert "| data | `data/data`" in card and "| protocol | default;" in card and "| training | 7 steps" in card
    assert "Evaluation of 2 scenes, 40 views, protocol reference" in card and "| fused, hIoU | 50.0 % |" in card
    assert "| hIoU | 25.0 % |" in card and "OpenRAIL-M, restricts uses" in card and str(tmp_path) not in card
