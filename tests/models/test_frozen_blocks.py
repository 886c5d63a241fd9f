"""Blocks that keep little give what diffusers' own give, to the last gradient."""

import copy

import pytest
import torch
from diffusers import UNet2DConditionModel
from torch import Tensor

from tests.helpers.diffusion import recorded_networks
from xmask3d.models import frozen_blocks
from xmask3d.models.frozen_blocks import keep_little, residual_block


@pytest.fixture(scope="module")
def unet() -> UNet2DConditionModel:
    return recorded_networks()[1].requires_grad_(False).eval()


def gradients(unet: UNet2DConditionModel) -> tuple[Tensor, Tensor, Tensor]:
    generator = torch.Generator().manual_seed(0)
    latent = torch.randn(2, 4, 16, 16, generator=generator)
    text = torch.randn(2, 5, unet.config.cross_attention_dim, generator=generator, requires_grad=True)
    block = unet.down_blocks[0]
    time = torch.randn(2, unet.time_embedding.linear_2.out_features, generator=generator, requires_grad=True)
    x = unet.conv_in(latent)
    for resnet, attention in zip(block.resnets, block.attentions, strict=True):
        x = residual_block(resnet, x, time)
        x = attention(x, encoder_hidden_states=text, return_dict=False)[0]
    x.square().sum().backward()
    return x.detach(), text.grad, time.grad


@pytest.mark.parametrize("worth", [1, 1 << 40])
def test_values_and_gradients_are_those_of_diffusers(unet, worth: int, monkeypatch) -> None:
    monkeypatch.setattr(frozen_blocks, "_is_plain", lambda block: False)
    expected = gradients(unet)
    monkeypatch.undo()
    monkeypatch.setattr(frozen_blocks, "_WORTH", worth)
    changed = copy.deepcopy(unet)
    keep_little(changed)
    assert changed.state_dict().keys() == unet.state_dict().keys()
    calls = []
    checkpoint = frozen_blocks.checkpoint
    monkeypatch.setattr(frozen_blocks, "checkpoint", lambda *a, **k: calls.append(a) or checkpoint(*a, **k))
    for ours, theirs in zip(gradients(changed), expected, strict=True):
        torch.testing.assert_close(ours, theirs, rtol=1e-5, atol=1e-5)
    # Two convolutions, a cross-attention and a feed-forward a layer; the first layer's input needs no gradient yet.
    layers = len(unet.down_blocks[0].resnets)
    assert len(calls) == (4 * layers - 1 if worth == 1 else 0)


def test_no_gradient_no_recomputation_and_the_input_stays(unet, monkeypatch) -> None:
    monkeypatch.setattr(frozen_blocks, "_WORTH", 1)
    monkeypatch.setattr(frozen_blocks, "checkpoint", None)
    resnet = unet.down_blocks[0].resnets[0]
    x = torch.randn(1, resnet.in_channels, 8, 8)
    before, time = x.clone(), torch.randn(1, unet.time_embedding.linear_2.out_features)
    with torch.no_grad():
        torch.testing.assert_close(residual_block(resnet, x, time), resnet(x, time), rtol=1e-6, atol=1e-6)
    assert torch.equal(x, before)


def test_blocks_of_other_kinds_are_left_to_diffusers(unet) -> None:
    changed = copy.deepcopy(unet)
    block = changed.down_blocks[0].attentions[0].transformer_blocks[0]
    block.norm_type = "ada_norm"
    keep_little(changed)
    assert type(block).__name__ == "BasicTransformerBlock"
    resnet = changed.down_blocks[0].resnets[0]
    resnet.output_scale_factor = 2.0
    x, time = torch.randn(1, resnet.in_channels, 4, 4), torch.randn(1, unet.time_embedding.linear_2.out_features)
    with torch.no_grad():
        assert torch.equal(residual_block(resnet, x, time), resnet(x, time))
