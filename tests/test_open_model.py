from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file

from xmask3d.build import build_model, open_clip_model
from xmask3d.config import load_config
from xmask3d.errors import UserError
from xmask3d.open_model import open_model


def test_a_model_has_the_weights_of_its_checkpoint(tiny: Path, tmp_path: Path) -> None:
    config = load_config(tiny)
    weights = {name: tensor.contiguous() for name, tensor in build_model(config).model.state_dict().items()}
    weights["fuser.linear.bias"] = torch.full_like(weights["fuser.linear.bias"], 3)
    save_file(weights, tmp_path / "a.safetensors")
    opened = open_model(config, tmp_path / "a.safetensors").model.state_dict()
    assert all(torch.equal(opened[name], tensor) for name, tensor in weights.items())
    del weights["fuser.linear.bias"]
    save_file(weights, tmp_path / "b.safetensors")
    with pytest.raises(UserError, match=r"b\.safetensors: does not fit the model .*: 1 tensors missing"):
        open_model(config, tmp_path / "b.safetensors")


@pytest.mark.parametrize("source", ["/nowhere/clip", "./clip"])
def test_a_clip_that_is_gone_is_named(source: str) -> None:
    with pytest.raises(UserError, match=rf"model\.clip {source}: no such file or folder"):
        open_clip_model(source)
