import json
import shutil
import zipfile
from pathlib import Path

import pytest
import torch
from diffusers import AutoencoderKL, UNet2DConditionModel
from safetensors.torch import load_file, save_file

from tests.helpers.command import run_command
from tests.helpers.diffusion import SMALL_UNET_1, SMALL_VAE, compvis_state
from tests.helpers.published import write_released
from tests.helpers.tiny import write_config
from xmask3d.build import build_model
from xmask3d.checkpoints.check_weights import Finding, check_weights
from xmask3d.checkpoints.checkpoint import Checkpoint, CheckpointFolder, load_weights
from xmask3d.checkpoints.convert import convert
from xmask3d.checkpoints.export import about_checkpoint
from xmask3d.checkpoints.published import Layout
from xmask3d.config import Config, load_config, save_config
from xmask3d.errors import UserError
from xmask3d.models.loading.diffusion_weights import load_diffusion


@pytest.fixture
def own(tiny: Path, tmp_path: Path) -> Path:
    """A configuration whose foundation models may be spoilt."""
    return write_config(tmp_path / "own", data=load_config(tiny).data.root)


def find(config: Config, what: str, checkpoint: Path | None = None) -> Finding:
    return next(finding for finding in check_weights(config, checkpoint) if finding.what == what)


def test_all_there(tiny: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run_command("check", tiny, "--weights") == 0
    lines = capsys.readouterr().out.splitlines()
    assert [line.split()[0] for line in lines] == ["there", "there", "there", "all"]
    assert "width 32" in lines[0] and "AutoencoderKL of" in lines[1] and "1 x 4 x 32" in lines[2]


def test_everything_missing(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture, tmp_path: Path) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    arguments = ["config/scannet/B12N7.yaml", f"model.diffusion={tmp_path / 'sd.ckpt'}", "model.clip=ViT-L-14/openai"]
    assert run_command("check", *arguments, "--weights", "--checkpoint", tmp_path / "b12n7.pth.tar") == 1
    printed = capsys.readouterr().out
    assert printed.endswith("missing: CLIP, Stable Diffusion, embedding of the empty prompt, checkpoint\n")
    assert printed.count("get it: ") == printed.count("put it: ") == 4
    assert all(word in printed for word in ("ViT-L-14.pt", "download_checkpoints.sh b12n7", str(tmp_path / "sd.ckpt")))


def test_a_name_that_open_clip_does_not_know(tiny: Path) -> None:
    config = load_config(tiny, ["model.clip=ViT-L-41/openai"])
    assert "neither a file nor a model" in find(config, "CLIP").detail


def test_clip_in_the_cache_and_as_a_file(tiny: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    cached = tmp_path / ".cache" / "clip" / "ViT-L-14.pt"
    cached.parent.mkdir(parents=True)
    with zipfile.ZipFile(cached, "w") as archive:  # as OpenAI's archives are laid out
        archive.writestr("ViT-L-14/constants.pkl", b"")
        archive.writestr("ViT-L-14/data/0", b"")
    finding = find(load_config(tiny, ["model.clip=ViT-L-14/openai"]), "CLIP")
    assert finding.there and str(cached) in finding.detail
    cached.write_bytes(cached.read_bytes()[:40])
    finding = find(load_config(tiny, ["model.clip=ViT-L-14/openai"]), "CLIP")
    assert not finding.there and "fetched again" in finding.get
    file = tmp_path / "clip.pt"
    torch.save({"visual.proj": torch.zeros(4, 3), "text_projection": torch.zeros(5, 3)}, file)
    assert "width 3" in find(load_config(tiny, [f"model.clip={file}"]), "CLIP").detail
    torch.save({"visual.proj": torch.zeros(4, 3)}, file)
    assert not find(load_config(tiny, [f"model.clip={file}"]), "CLIP").there


def test_folders_that_are_spoilt(own: Path) -> None:
    config = load_config(own)
    clip, diffusion = Path(config.model.clip), Path(config.model.diffusion)
    tensors = load_file(clip / "model.safetensors")
    tensors.pop("text_projection")
    save_file(tensors, clip / "model.safetensors")
    assert "text_projection and" in find(config, "CLIP").detail
    (clip / "model.safetensors").unlink()
    assert "no CLIP weights" in find(config, "CLIP").detail
    (clip / "open_clip_config.json").write_text(json.dumps({}))
    assert "not a description" in find(config, "CLIP").detail
    weights = diffusion / "unet" / "diffusion_pytorch_model.safetensors"
    tensors = load_file(weights)
    tensors["conv_in.bias"] = torch.zeros(3)
    save_file(tensors, weights)
    assert "other shapes in conv_in.bias" in find(config, "Stable Diffusion").detail
    tensors.pop("conv_in.bias")
    save_file(tensors, weights)
    assert "are missing: conv_in.bias" in find(config, "Stable Diffusion").detail
    weights.write_bytes(b"short")
    assert "not a readable weight file" in find(config, "Stable Diffusion").detail
    (diffusion / "empty_prompt.safetensors").unlink()
    assert not find(config, "embedding of the empty prompt").there
    (diffusion / "text_encoder").mkdir()
    (diffusion / "text_encoder" / "model.safetensors").touch()
    assert find(config, "embedding of the empty prompt").there


def test_a_compvis_checkpoint(tiny: Path, tmp_path: Path) -> None:
    path = tmp_path / "sd.ckpt"
    vae, unet = AutoencoderKL.from_config(SMALL_VAE), UNet2DConditionModel.from_config(SMALL_UNET_1)
    state = compvis_state(vae, unet)
    torch.save({"state_dict": state}, path)
    config = load_config(tiny, [f"model.diffusion={path}"])
    assert "CompVis checkpoint" in find(config, "Stable Diffusion").detail
    assert not find(config, "embedding of the empty prompt").there
    shutil.copy(Path(load_config(tiny).model.diffusion) / "empty_prompt.safetensors", tmp_path)
    assert find(config, "embedding of the empty prompt").there
    torch.save({"state_dict": state | {"cond_stage_model.transformer.x": torch.zeros(1)}}, path)
    assert "computed from the text encoder" in find(config, "embedding of the empty prompt").detail
    state.pop(next(name for name in state if "attn2" in name))
    torch.save({"state_dict": state}, path)
    assert not find(config, "Stable Diffusion").there


def test_an_incomplete_compvis_checkpoint(tiny: Path, tmp_path: Path) -> None:
    path = tmp_path / "sd.ckpt"
    state = compvis_state(AutoencoderKL.from_config(SMALL_VAE), UNet2DConditionModel.from_config(SMALL_UNET_1))
    config = load_config(tiny, [f"model.diffusion={path}"])
    for part in ("encoder.down.0.downsample.conv.bias", "decoder.up.3.upsample.conv.bias", "encoder.conv_in.bias"):
        name = f"first_stage_model.{part}"
        assert name in state
        torch.save({"state_dict": {other: tensor for other, tensor in state.items() if other != name}}, path)
        finding = find(config, "Stable Diffusion")
        assert not finding.there and str(path) in finding.detail, name
        with pytest.raises(UserError, match=r"sd\.ckpt"):
            load_diffusion(path)


def test_checkpoints(tiny: Path, tmp_path: Path) -> None:
    config = load_config(tiny)
    path = write_released(tmp_path / "b15n4.pth.tar", Layout.of(build_model(config).model))
    assert find(config, "checkpoint", path).detail.endswith("epoch 150, 15 base classes")
    convert(path, tmp_path / "b15n4.safetensors", config)
    assert find(config, "checkpoint", tmp_path / "b15n4.safetensors").there
    other = load_config(tiny, ["benchmark=scannet20/B12N7"])
    assert "trained on 15 base classes" in find(other, "checkpoint", path).detail
    assert find(load_config("config/rooms/B12N7.yaml"), "checkpoint", path).get.startswith("train it")
    path.write_bytes(path.read_bytes()[:-5000])
    assert "damaged" in find(config, "checkpoint", path).detail


def test_checkpoints_of_runs_and_exported_models(own: Path, tmp_path: Path) -> None:
    config = load_config(own)
    folder = CheckpointFolder(tmp_path / "run" / "checkpoints")
    folder.save(Checkpoint(7, 2, build_model(config).model.state_dict(), {}, config.model_dump(mode="json")))
    save_config(config, tmp_path / "run" / "config.yaml")
    saved = tmp_path / "run" / "checkpoints" / "step-00000007.pt"
    other = load_config(own, ["benchmark=scannet20/B12N7"])
    assert find(config, "checkpoint", saved).detail.endswith("checkpoint of a run, step 7")
    assert "trained on scannet20/B15N4, not on scannet20/B12N7" in find(other, "checkpoint", saved).detail
    exported = shipped_model(config, saved, tmp_path / "out")
    assert find(config, "checkpoint", exported).detail.endswith("exported model, step 7")
    assert "trained on scannet20/B15N4, not on" in find(other, "checkpoint", exported).detail


def shipped_model(config: Config, checkpoint: Path, out: Path) -> Path:
    """The weights as `export_model` writes them, of networks that only this machine has."""
    out.mkdir()
    path = out / "model.safetensors"
    save_file(load_weights(checkpoint), path, metadata=about_checkpoint(checkpoint, config))
    return path
