"""Models of the Hugging Face hub, against a local server that answers as the hub does."""

import base64
import json
from pathlib import Path
from urllib.parse import urlparse

import huggingface_hub
import pytest
import torch
import yaml

from tests.helpers.tiny import write_config
from tests.helpers.web import FileServer
from xmask3d.build import build_model
from xmask3d.checkpoints.export import write_model
from xmask3d.checkpoints.sources import find_source
from xmask3d.config import load_config
from xmask3d.errors import UserError
from xmask3d.segment.segmenter import Segmenter

REPO, COMMIT = "org/name", "0" * 40
FACTS = {"benchmark": "scannet20/B15N4", "step": "7", "metrics": '{"fused_hiou": 0.25}'}


class Hub:
    """Answers of a hub with one model, whose files lie in a folder."""

    def __init__(self, folder: Path) -> None:
        self.folder, self.messages = folder, []

    def __call__(self, method: str, address: str, body: bytes) -> object:
        path = urlparse(address).path
        sizes = {file.name: file.stat().st_size for file in self.folder.iterdir()}
        if path.removesuffix(COMMIT).removesuffix("main") in (f"/api/models/{REPO}", f"/api/models/{REPO}/revision/"):
            siblings = [{"rfilename": name, "size": size} for name, size in sizes.items()]
            return {"id": REPO, "sha": COMMIT, "siblings": siblings, "cardData": {"license": "mit"}, "tags": []}
        if path.startswith(f"/api/models/{REPO}/tree/"):
            return [{"type": "file", "path": name, "size": size, "oid": "1" * 40} for name, size in sizes.items()]
        if path == "/api/repos/create":
            return {"url": f"https://huggingface.co/{REPO}", "id": REPO}
        if path == "/api/validate-yaml":
            return {"errors": [], "warnings": []}
        if path == f"/api/models/{REPO}/preupload/main":
            names = [file["path"] for file in json.loads(body)["files"]]
            return {"files": [{"path": n, "uploadMode": "regular", "shouldIgnore": False, "oid": None} for n in names]}
        if path == f"/api/models/{REPO}/commit/main":
            for line in map(json.loads, body.splitlines()):
                if line["key"] == "header":
                    self.messages.append(line["value"]["summary"])
                else:
                    (self.folder / line["value"]["path"]).write_bytes(base64.b64decode(line["value"]["content"]))
            return {"success": True, "commitUrl": f"https://huggingface.co/{REPO}/commit/{COMMIT}", "commitOid": COMMIT}
        return None


@pytest.fixture
def hub(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    """A hub that holds nothing yet, and the server in front of it; the cache is empty."""
    folder = tmp_path / "hub"
    folder.mkdir()
    answers = Hub(folder)
    with FileServer(folder, answers) as server:
        monkeypatch.setattr(huggingface_hub.constants, "ENDPOINT", server.url)
        template = server.url + "/{repo_id}/resolve/{revision}/{filename}"
        monkeypatch.setattr(huggingface_hub.constants, "HUGGINGFACE_CO_URL_TEMPLATE", template)
        monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_CACHE", str(tmp_path / "cache"))
        monkeypatch.setattr(huggingface_hub.constants, "HF_TOKEN_PATH", str(tmp_path / "no_token"))
        yield answers, server


def test_pushed_fetched_and_used_offline(
    hub: tuple[Hub, FileServer], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    answers, server = hub
    monkeypatch.chdir(tmp_path)
    config = load_config(write_config(tmp_path))
    config.model.clip, config.model.diffusion = "clip", "diffusion"
    torch.manual_seed(0)
    write_model(build_model(config).model.state_dict(), config, FACTS, tmp_path / "exported")
    first = Segmenter.from_pretrained(tmp_path / "exported", device="cpu")
    assert first.push_to_hub(REPO, token="hf_x").endswith(REPO)
    assert {file.name for file in answers.folder.iterdir()} == {"model.safetensors", "config.yaml", "README.md"}
    card = (answers.folder / "README.md").read_text()
    assert yaml.safe_load(card.split("---")[1])["license"] == "mit" and "| fused, hIoU | 25.0 % |" in card

    second = Segmenter.from_pretrained(REPO, device="cpu")
    plan = capsys.readouterr().err
    assert f"{REPO}: fetches" in plan and "licence: mit" in plan and second.source == f"{REPO} of the Hugging Face hub"
    stored = first.model.state_dict()
    assert all(torch.equal(tensor, stored[name]) for name, tensor in second.model.state_dict().items())
    fetched = sum(line.startswith("GET") and line.endswith("model.safetensors") for line in server.asked)
    find_source(REPO)
    assert sum(line.startswith("GET") and line.endswith("model.safetensors") for line in server.asked) == fetched == 1
    assert "fetches" not in capsys.readouterr().err

    monkeypatch.setattr(huggingface_hub.constants, "ENDPOINT", "http://127.0.0.1:9")  # nobody answers there
    assert find_source(REPO).checkpoint.samefile(find_source(REPO).config.parent / "model.safetensors")
    with pytest.raises(UserError, match="cannot be fetched from the hub"):
        find_source("org/other")


def test_what_is_no_model_of_this_package_is_refused(hub: tuple[Hub, FileServer]) -> None:
    answers, _ = hub
    (answers.folder / "pytorch_model.bin").write_bytes(b"x")
    with pytest.raises(UserError, match=r"no model of xmask3d, the hub has no config\.yaml"):
        find_source(REPO)
    with pytest.raises(UserError, match="org/unknown: cannot be fetched"):
        find_source("org/unknown")
