"""Networks that a configuration names by dotted path: those of docs/extending.md, and those that do not fit."""

import json
import re
from pathlib import Path

import pytest
import torch
import yaml
from torch import nn

from tests.helpers.runs import run, train_run
from xmask3d.build import build_model
from xmask3d.build_untrained import build_untrained, network_of
from xmask3d.checkpoints.checkpoint import load_weights, read_checkpoint
from xmask3d.checkpoints.export import export_model
from xmask3d.config import load_config
from xmask3d.engine.evaluate import evaluate
from xmask3d.engine.resume_check import check_resumable
from xmask3d.errors import UserError
from xmask3d.segment.segmenter import Segmenter

PAGE = Path(__file__).parents[2] / "docs" / "extending.md"
ONE_STEP = ["data.views_per_scene=1", "train.epochs=1"]


def overrides_of(heading: str, module: str, folder: Path) -> list[str]:
    """Write the module of a section of the page; returns the section's settings as overrides."""
    section = PAGE.read_text().split(f"## {heading}\n")[1].split("\n## ")[0]
    code, settings = re.findall(r"```(?:python|yaml)\n(.*?)```", section, re.DOTALL)[:2]
    (folder / f"{module}.py").write_text(code)
    return [f"model.{key}={json.dumps(value)}" for key, value in yaml.safe_load(settings)["model"].items()]


@pytest.mark.parametrize(
    "heading, module, changes, trained",
    [
        ("Another 3D network", "my_points", [], "point_encoder.leave.2.weight"),
        (
            "Another image backbone",
            "my_images",
            ["model.image_features_options={weights: null}", "model.diffusion=nowhere", "train.feature_cache=true"],
            "image_features.condition.3.weight",
        ),
    ],
)
def test_the_examples_train_save_load_and_evaluate(
    tiny: Path, heading: str, module: str, changes: list[str], trained: str, tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:  # fmt: skip
    monkeypatch.syspath_prepend(tmp_path)
    output = tmp_path / "run"
    overrides = [*ONE_STEP, *overrides_of(heading, module, tmp_path), *changes, f"output={output}"]
    assert run(train_run, tiny, overrides, log=tmp_path / "log") == 0
    assert run(train_run, tiny, overrides, log=tmp_path / "log") == 0  # finds its own run
    config, checkpoint = load_config(tiny, overrides), output / "checkpoints" / "step-00000001.pt"
    key = "point_network_options" if config.model.point_network else "image_features_options"
    with pytest.raises(UserError, match=rf"another configuration \(model\.{key}: "):
        check_resumable(load_config(tiny, [*overrides, f"model.{key}={{other: 1}}"]), read_checkpoint(checkpoint), 1)
    torch.manual_seed(config.seed)
    start, weights = build_model(config).model.state_dict(), load_weights(checkpoint)
    assert weights.keys() == start.keys() and not any("network." in name for name in weights)
    assert not torch.equal(weights[trained], start[trained])
    results = evaluate(config, checkpoint, output=tmp_path / "evaluation")
    assert results is not None and results.views > 0 and results.points > 0

    for refused in (lambda: Segmenter.from_pretrained(checkpoint), lambda: export_model(output, tmp_path / "out")):
        with pytest.raises(UserError, match=rf"config\.yaml:\d+: model\..* names code .*{module}\..*--trust-code"):
            refused()
    assert Segmenter.from_pretrained(checkpoint, trust_code=True).config == config
    assert Segmenter.from_pretrained(checkpoint, output / "config.yaml").config == config  # named by the user
    with pytest.raises(UserError, match=r"published checkpoints are of the built-in"):
        network_of(config)


def test_a_network_of_ones_own_needs_no_weights(tiny: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(tmp_path)
    model = build_untrained(load_config(tiny, overrides_of("Another 3D network", "my_points", tmp_path)))
    assert type(model.point_encoder).__name__ == "CellMeans"
    assert all(tensor.is_meta for tensor in model.state_dict().values())


class Plain(nn.Module):
    """Neither contract is fulfilled."""

    channels, strides = (8, 8), (4, 8)

    def __init__(self, dim: int) -> None:
        super().__init__()


class Coarse(Plain):
    """All methods are there, but not all strides."""

    def forward(self) -> None: ...

    encode = pack = unpack = numbers_per_image = frozen_networks = forward


def not_a_module(dim: int) -> int:
    return dim


HERE = __name__


@pytest.mark.parametrize(
    "overrides, message",
    [
        (
            ["point_network=MyNet"],
            r"model\.point_network: .*no dotted path, such as package\.module\.class, got .MyNet",
        ),
        (["point_network=no_such_package.Net"], r"^model\.point_network: no_such_package\.Net cannot be imported"),
        ([f"point_network={HERE}.Missing"], r"^model\.point_network: .*\.Missing cannot be imported"),
        ([f"point_network={HERE}.not_a_module"], r"is no PointNetwork: it is no torch\.nn\.Module; .*contracts\.py"),
        ([f"point_network={HERE}.Plain"], r"Plain is no PointNetwork: it has no forward;"),
        (
            [f"point_network={HERE}.Plain", "point_network_options={depth: 2}"],
            r"Plain does not take dim and model\.point_network_options={'depth': 2} \(.*'depth'\)",
        ),
        (
            [f"image_features={HERE}.Plain"],
            r"Plain is no ImageFeatures: it has no encode, frozen_networks, numbers_per_image, pack, unpack, forward;",
        ),
        ([f"image_features={HERE}.Coarse"], r"its maps have strides \[4, 8\] and channels \[8, 8\]"),
    ],
)
def test_what_does_not_fit_is_one_line(tiny: Path, overrides: list[str], message: str) -> None:
    with pytest.raises(UserError, match=message) as caught:
        build_model(load_config(tiny, [f"model.{override}" for override in overrides]))
    assert "\n" not in str(caught.value)
