"""Blocks that keep little give what diffusers' own give, to the last gradient."""

import copy

import pytest
import torch
from diffusers import Transformer2DModel, UNet2DConditionModel
from torch import Tensor, nn
from torch.utils._python_dispatch import TorchDispatchMode

from tests.helpers.diffusion import recorded_networks
from xmask3d.models import activation_checkpointing as checkpointing
from xmask3d.models.activation_checkpointing import multiply_less, residual_block, use_checkpointing
from xmask3d.native import winograd


@pytest.fixture(scope="module")
def unet() -> UNet2DConditionModel:
    return recorded_networks()[1].requires_grad_(False).eval().double()


def gradients(unet: UNet2DConditionModel) -> tuple[Tensor, Tensor, Tensor]:
    generator = torch.Generator().manual_seed(0)

    def random(*shape: int) -> Tensor:
        return torch.randn(shape, generator=generator).to(unet.dtype)

    latent = random(2, 4, 16, 16)
    text = random(2, 5, unet.config.cross_attention_dim).requires_grad_()
    block = unet.down_blocks[0]
    time = random(2, unet.time_embedding.linear_2.out_features).requires_grad_()
    x = unet.conv_in(latent)
    for resnet, attention in zip(block.resnets, block.attentions, strict=True):
        x = residual_block(resnet, x, time)
        x = attention(x, encoder_hidden_states=text, return_dict=False)[0]
    x.square().sum().backward()
    return x.detach(), text.grad, time.grad


@pytest.mark.parametrize("worth, tokens", [(1, 256), (1, 64), (1 << 40, 256)])
def test_values_and_gradients_are_those_of_diffusers(unet, worth: int, tokens: int, monkeypatch) -> None:
    monkeypatch.setattr(checkpointing, "_is_plain", lambda block: False)
    expected = gradients(unet)
    monkeypatch.undo()
    monkeypatch.setattr(checkpointing, "_WORTH", worth)
    monkeypatch.setattr(checkpointing, "_TOKENS", tokens)
    changed = copy.deepcopy(unet)
    use_checkpointing(changed)
    assert changed.state_dict().keys() == unet.state_dict().keys()
    calls = []
    checkpoint = checkpointing.checkpoint
    monkeypatch.setattr(checkpointing, "checkpoint", lambda *a, **k: calls.append(a) or checkpoint(*a, **k))
    for ours, theirs in zip(gradients(changed), expected, strict=True):
        torch.testing.assert_close(ours, theirs, rtol=1e-10, atol=1e-10)
    # Two convolutions, attention and feed-forward a layer; the first layer's input needs no gradient yet.
    layers = len(unet.down_blocks[0].resnets)
    assert len(calls) == ((3 + 256 // tokens) * layers - 1 if worth == 1 else 0)


def test_no_gradient_no_recomputation_and_the_input_stays(unet, monkeypatch) -> None:
    monkeypatch.setattr(checkpointing, "_WORTH", 1)
    monkeypatch.setattr(checkpointing, "checkpoint", None)
    resnet = unet.down_blocks[0].resnets[0]
    x = torch.randn(1, resnet.in_channels, 8, 8).double()
    before, time = x.clone(), torch.randn(1, unet.time_embedding.linear_2.out_features).double()
    with torch.no_grad():
        torch.testing.assert_close(residual_block(resnet, x, time), resnet(x, time), rtol=1e-12, atol=1e-12)
    assert torch.equal(x, before)


def test_blocks_of_other_kinds_are_left_to_diffusers(unet) -> None:
    changed = copy.deepcopy(unet)
    block = changed.down_blocks[0].attentions[0].transformer_blocks[0]
    block.norm_type = "ada_norm"
    use_checkpointing(changed)
    assert type(changed.down_blocks[0].attentions[0]) is Transformer2DModel
    assert type(changed.down_blocks[0].attentions[1]) is not Transformer2DModel
    resnet = changed.down_blocks[0].resnets[0]
    resnet.output_scale_factor = 2.0
    x = torch.randn(1, resnet.in_channels, 4, 4).double()
    time = torch.randn(1, unet.time_embedding.linear_2.out_features).double()
    with torch.no_grad():
        assert torch.equal(residual_block(resnet, x, time), resnet(x, time))


def test_self_attention_is_computed_once(unet, monkeypatch) -> None:
    monkeypatch.setattr(checkpointing, "_WORTH", 1)
    changed = copy.deepcopy(unet)
    use_checkpointing(changed)
    counted = []

    class Count(TorchDispatchMode):
        def __torch_dispatch__(self, operator, types, arguments=(), options=None):
            if operator in checkpointing._ATTENTION:
                counted.append(arguments[0].shape[-2] == arguments[1].shape[-2])
            return operator(*arguments, **(options or {}))

    with Count():
        gradients(changed)
    layers = len(unet.down_blocks[0].resnets)
    assert counted.count(True) == layers  # self-attention: in the forward pass only
    assert counted.count(False) == 2 * layers  # cross-attention: recomputed


@pytest.mark.skipif(bool(winograd.failure()), reason=winograd.failure())
@pytest.mark.parametrize("worth", [1, 1 << 40])
def test_fewer_multiplications(unet, worth: int, monkeypatch) -> None:
    expected = gradients(unet)
    monkeypatch.setattr(checkpointing, "_WORTH", worth)
    monkeypatch.setattr(winograd, "_CHANNELS", 1)
    monkeypatch.setattr(winograd, "_TILES", 0)
    calls = []
    convolve = winograd.convolve
    monkeypatch.setattr(winograd, "convolve", lambda *a, **k: calls.append(a) or convolve(*a, **k))
    changed = copy.deepcopy(unet).float()
    multiply_less(changed)
    assert changed.state_dict().keys() == unet.state_dict().keys()
    x, of_text, of_time = gradients(changed)
    torch.testing.assert_close(x.double(), expected[0], rtol=1e-4, atol=1e-4)
    assert (of_text - expected[1]).norm() <= 1e-4 * expected[1].norm()
    assert of_time.norm() <= 1e-4 * of_text.norm()  # the norm after it takes away what all pixels have in common
    layers = len(unet.down_blocks[0].resnets)
    assert len(calls) >= 4 * layers  # two convolutions a layer, forward and backward


def test_convolutions_of_other_kinds_stay(unet) -> None:
    changed = copy.deepcopy(unet)
    multiply_less(changed)
    convolutions = [module for module in changed.modules() if isinstance(module, nn.Conv2d)]
    plain = [conv for conv in convolutions if type(conv) is nn.Conv2d]
    assert len(plain) < len(convolutions)
    assert all(conv.kernel_size != (3, 3) or conv.stride != (1, 1) for conv in plain)
