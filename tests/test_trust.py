"""Configurations of others fetch and import nothing that is not known."""

from pathlib import Path

import pytest

from xmask3d.config import load_config
from xmask3d.errors import UserError


@pytest.mark.parametrize(
    "setting",
    ["model.clip=somebody/network", "model.clip=hf-hub:somebody/network", "model.clip=ViT-L-14//somewhere/file.pt",
     "model.diffusion=somebody/network", "model.image_features=their_package.Features",
     "model={image_features: timm, image_features_options: {weights: hub}}"],
)  # fmt: skip
def test_what_leads_out_of_the_program_is_refused(tmp_path: Path, setting: str) -> None:
    path = tmp_path / "config.yaml"
    path.write_text("seed: 1\n")
    load_config(path, [setting])
    with pytest.raises(UserError, match=r"model\.(clip|diffusion|image_features) names .*allow it with --trust-code"):
        load_config(path, [setting], trusted=False)


@pytest.mark.parametrize("clip", ["shipped", "ViT-L-14/openai", "ViT-L-14", "ViT-B-32/laion2b_s34b_b79k", "a.pt"])
def test_files_and_listed_networks_are_allowed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, clip: str) -> None:
    monkeypatch.chdir(tmp_path)
    for name in ("a.pt", "somebody/network"):
        Path(name).parent.mkdir(exist_ok=True)
        Path(name).touch()
    Path("config.yaml").write_text(f"model: {{clip: {clip}, diffusion: somebody/network}}\n")
    assert load_config("config.yaml", trusted=False).model.clip == clip
