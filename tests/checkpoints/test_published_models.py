"""Published models by name, from a server of files of the published names and shapes, with small random weights."""

import dataclasses
import tarfile
from pathlib import Path

import open_clip
import pytest
import torch

from tests.helpers.diffusion import compvis_state, recorded_networks
from tests.helpers.published import write_released
from tests.helpers.tiny import write_config
from tests.helpers.web import FileServer
from tests.models.loading.test_diffusion_weights import as_transformers_names, text_tower
from xmask3d.build import build_model
from xmask3d.checkpoints import convert, published_models
from xmask3d.checkpoints.published import Layout
from xmask3d.checkpoints.published_models import fetch_published
from xmask3d.checkpoints.sources import find_source
from xmask3d.config import Config, load_config
from xmask3d.data.download import fetch
from xmask3d.data.download.items import ITEMS
from xmask3d.errors import UserError
from xmask3d.files import sha256_of
from xmask3d.segment.segmenter import Segmenter

CLIP = {
    "embed_dim": 32,
    "vision_cfg": {"image_size": 32, "layers": 1, "width": 64, "head_width": 64, "patch_size": 8},
    "text_cfg": {"context_length": 77, "vocab_size": 49408, "width": 64, "heads": 1, "layers": 1},
}


def write_openai_clip(path: Path) -> None:
    """A CLIP in OpenAI's layout."""
    sizes = {"input_resolution": 32, "context_length": 77, "vocab_size": 49408}
    state = open_clip.CLIP(**CLIP, quick_gelu=True).state_dict()
    torch.save(state | {name: torch.tensor(size) for name, size in sizes.items()}, path)


def write_stable_diffusion(path: Path) -> None:
    """A checkpoint in CompVis' layout, packed as it is published."""
    state = compvis_state(*recorded_networks())
    tower = as_transformers_names(text_tower(64, quick_gelu=True))
    state |= {f"cond_stage_model.transformer.{name}": tensor for name, tensor in tower.items()}
    inner = path.parent / "sd-v1-3.ckpt"
    torch.save({"state_dict": state, "global_step": 5}, inner)
    with tarfile.open(path, "w:gz") as archive:
        archive.add(inner, "sd_model/sd-v1-3.ckpt")
    inner.unlink()


@pytest.fixture(scope="module")
def published(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Config]:
    """Folder of a server, and the configuration of the small network."""
    root, files = tmp_path_factory.mktemp("tiny"), tmp_path_factory.mktemp("server")
    torch.manual_seed(0)
    write_openai_clip(files / "ViT-L-14.pt")
    write_stable_diffusion(files / "sd_model.tar.gz")
    config = load_config(write_config(root))
    config.model.clip = str(files / "ViT-L-14.pt")
    with tarfile.open(files / "sd_model.tar.gz") as archive:
        archive.extractall(root / "sd", filter="data")
    config.model.diffusion = str(root / "sd" / "sd_model" / "sd-v1-3.ckpt")
    write_released(files / "b15n4.pth.tar", Layout.of(build_model(config).model), optimizer=False)
    return files, config


@pytest.fixture
def small(published: tuple[Path, Config], monkeypatch: pytest.MonkeyPatch) -> tuple[Path, Config]:
    """The same, in place of the published sizes."""
    monkeypatch.setattr(published_models, "load_config", lambda name: published[1].model_copy(deep=True))
    monkeypatch.setattr(convert, "network_of", lambda config: build_model(config).model)
    monkeypatch.setattr(fetch, "RESERVE", 0)
    return published


def serve(server: FileServer, files: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("b15n4", "clip", "sd_model"):
        file = ITEMS[name].file
        digest = sha256_of(files / file) if name == "clip" else None
        item = dataclasses.replace(ITEMS[name], urls=(f"{server.url}/{file}",), sha256=digest)
        monkeypatch.setitem(ITEMS, name, dataclasses.replace(item, size=(files / file).stat().st_size))


def test_fetched_resumed_converted_once_and_offline_afterwards(
    small: tuple[Path, Config], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    files, _ = small
    monkeypatch.setattr(fetch.time, "sleep", lambda seconds: None)
    monkeypatch.chdir(tmp_path)
    (tmp_path / "pretrained").mkdir()
    with FileServer(files) as server:
        serve(server, files, monkeypatch)
        server.drops = {"ViT-L-14.pt", "b15n4.pth.tar"}
        source = find_source("scannet20-B15N4")
        asked = list(server.asked)
        assert asked.count("GET /ViT-L-14.pt") == 2 and asked.count("GET /sd_model.tar.gz") == 1  # one broke, resumed
    plan = capsys.readouterr().err
    assert "scannet20-b15n4: fetches" in plan and "once; about 1 min" in plan
    assert "OpenRAIL-M" in plan and plan.count("licence: ") == 3
    assert source.words == "the published model scannet20-b15n4"
    converted = source.checkpoint.stat().st_mtime_ns
    again = find_source("scannet20-b15n4")  # nobody serves any more
    assert again.checkpoint == source.checkpoint and again.checkpoint.stat().st_mtime_ns == converted
    assert "fetches" not in capsys.readouterr().err
    monkeypatch.chdir("/")  # from any other folder too
    segmenter = Segmenter.from_pretrained(source.checkpoint, device="cpu")
    assert segmenter.config.model.clip == str(tmp_path / "pretrained" / "ViT-L-14.pt")
    stored = torch.load(files / "b15n4.pth.tar", weights_only=False)["state_dict"]
    loaded = segmenter.model.state_dict()["mask_decoder.query_feat.weight"]
    torch.testing.assert_close(loaded, stored["module.sem_seg_head.predictor.query_feat.weight"])


def test_a_download_that_is_not_what_was_published_is_refused(
    small: tuple[Path, Config], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    files, _ = small
    with FileServer(files) as server:
        serve(server, files, monkeypatch)
        monkeypatch.setitem(ITEMS, "clip", dataclasses.replace(ITEMS["clip"], sha256="0" * 64))
        with pytest.raises(UserError, match="SHA-256"):
            fetch_published("scannet20-b15n4", tmp_path)
    assert not (tmp_path / "scannet20-b15n4" / "model.safetensors").exists()


def test_a_disk_that_is_too_small_is_named_before_anything_is_fetched(
    small: tuple[Path, Config], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(ITEMS, "sd_model", dataclasses.replace(ITEMS["sd_model"], size=10**18))
    with pytest.raises(UserError, match="GB are needed"):
        fetch_published("scannet20-b15n4", tmp_path)
