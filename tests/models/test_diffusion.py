import copy

import numpy as np
import pytest
import torch
from diffusers import AutoencoderKL, UNet2DConditionModel
from torch import Tensor, nn

from tests.helpers.diffusion import recorded_conditioner, recorded_networks
from tests.helpers.golden import assert_matches, load_case
from xmask3d.errors import UserError
from xmask3d.models.conditioner import EmptyConditioner, ImageConditioner, ImplicitConditioner
from xmask3d.models.diffusion import DiffusionFeatures, shared_noise
from xmask3d.models.loading.diffusion_weights import build_diffusion


@pytest.fixture(scope="module")
def whole() -> tuple[AutoencoderKL, UNet2DConditionModel]:
    return recorded_networks()


@pytest.fixture
def features(whole: tuple[AutoencoderKL, UNet2DConditionModel]) -> DiffusionFeatures:
    return DiffusionFeatures(*copy.deepcopy(whole))


def test_matches_recorded_maps(features: DiffusionFeatures) -> None:
    inputs, outputs = load_case("e_ldm_small")
    with torch.no_grad():
        encoded = features.encode(torch.from_numpy(inputs["image"]))
        text, time = recorded_conditioner()(torch.from_numpy(inputs["cond"]))
        maps = features(encoded, text, time)
    assert len(maps) == 8
    for index, x in enumerate(maps):
        assert_matches(outputs, f"feature{index}", x)
    assert_matches(outputs, "latent", encoded.latent)
    assert_matches(outputs, "noisy_latent", features.add_noise(encoded.latent))
    assert_matches(outputs, "cond_inputs", text)
    assert_matches(outputs, "cond_emb", time)
    assert features.channels == [x.shape[1] for x in maps] == inputs["feature_dims"].tolist()
    assert features.strides == [128 // x.shape[3] for x in maps] == inputs["feature_strides"].tolist()


@pytest.mark.parametrize("checkpointing", [False, True])
def test_matches_recorded_gradients(features: DiffusionFeatures, checkpointing: bool) -> None:
    images = torch.from_numpy(load_case("e_ldm_small")[0]["image"])
    inputs, outputs = load_case("e_ldm_small_grad")
    features.checkpointing = checkpointing
    conditioner = recorded_conditioner()
    condition = torch.from_numpy(inputs["cond"]).requires_grad_()
    maps = features(features.encode(images), *conditioner(condition))
    loss = sum(0.5 * x.square().mean() for x in maps)
    loss.backward()
    np.testing.assert_allclose(loss.item(), outputs["loss"], rtol=1e-5)
    assert_matches(outputs, "grad_cond", condition.grad)
    for name, parameter in conditioner.named_parameters():
        assert_matches(outputs, f"grad_{name}", parameter.grad)
    assert all(parameter.grad is None for network in features.frozen_networks() for parameter in network.parameters())
    assert [x.requires_grad for x in maps] == [False] * 2 + [True] * 4 + [False] * 2


def test_truncation_changes_no_map(
    whole: tuple[AutoencoderKL, UNet2DConditionModel], features: DiffusionFeatures
) -> None:
    """The inputs that hooks see in diffusers' whole networks, for a latent that does not halve evenly."""
    vae, unet = whole
    seen: list[Tensor] = []
    taps = [block.resnets[1] for block in vae.encoder.down_blocks[2:]]
    taps += [block.resnets[2] for block in unet.up_blocks]
    taps += [block.resnets[2] for block in vae.decoder.up_blocks[:2]]
    hooks = [tap.register_forward_pre_hook(lambda _, args: seen.append(args[0])) for tap in taps]
    torch.manual_seed(0)
    images, text, time = torch.rand(1, 3, 40, 48), torch.randn(1, 5, 64), torch.zeros(1, 128)
    with torch.no_grad():
        latent = vae.encode(images * 2 - 1).latent_dist.mean * 0.18215
        unet(features.add_noise(latent), torch.zeros(1), text)
        vae.decode(latent / 0.18215)
        actual = features(features.encode(images), text, time)
    for hook in hooks:
        hook.remove()
    assert len(seen) == 8
    for expected, x in zip(seen, actual, strict=True):
        torch.testing.assert_close(x, expected, rtol=1e-4, atol=1e-4)


def test_nothing_behind_the_last_map_is_kept(features: DiffusionFeatures) -> None:
    assert features.vae.decoder.conv_out is None and features.unet.conv_out is None
    assert [len(block.resnets) for block in features.vae.decoder.up_blocks] == [3, 2]
    assert [len(block.resnets) for block in features.unet.up_blocks] == [3, 3, 3, 2]
    again = DiffusionFeatures(features.vae, features.unet)
    assert again.channels == features.channels


def test_frozen_networks_stay_out_of_sight(features: DiffusionFeatures) -> None:
    model = nn.Sequential(features, nn.Linear(2, 2))
    assert set(model.state_dict()) == {"1.weight", "1.bias"}
    assert len(list(model.parameters())) == 2
    model.load_state_dict(model.state_dict(), strict=True)
    model.train()
    assert not features.vae.training and not features.unet.training
    model.requires_grad_(True)
    assert not any(parameter.requires_grad for parameter in features.unet.parameters())
    model.double()
    assert features.unet.dtype == features.vae.dtype == features.noise.dtype == torch.float64
    assert not any(parameter.requires_grad for parameter in features.unet.parameters())


def test_noise_is_shared_and_resized(features: DiffusionFeatures) -> None:
    inputs, outputs = load_case("e_ldm_small")
    noise = shared_noise()
    np.testing.assert_array_equal(noise.flatten()[:64], inputs["shared_noise_first64"])
    zero = features.add_noise(torch.zeros(2, 4, 8, 16)) / features.noise_rate
    assert torch.equal(zero[0], zero[1])
    np.testing.assert_allclose(zero[:1], outputs["resized_noise"], atol=1e-5)
    whole = features.add_noise(torch.zeros(1, 4, 64, 64))
    torch.testing.assert_close(whole, noise * 0.00085**0.5)


def test_half_precision_weights_give_similar_maps_in_the_dtype_of_the_input(
    whole: tuple[AutoencoderKL, UNet2DConditionModel], features: DiffusionFeatures
) -> None:
    half = DiffusionFeatures(*copy.deepcopy(whole), dtype=torch.bfloat16, channels_last=True)
    assert half.unet.dtype == torch.bfloat16
    torch.manual_seed(0)
    images, text, time = torch.rand(1, 3, 64, 64), torch.randn(1, 77, 64), torch.randn(1, 128)
    with torch.no_grad():
        pairs = zip(features(features.encode(images), text, time), half(half.encode(images), text, time), strict=True)
    for expected, x in pairs:
        assert x.dtype == torch.float32
        assert (x - expected).norm() < 0.1 * expected.norm()


def test_encoded_images_can_be_kept_apart(features: DiffusionFeatures) -> None:
    torch.manual_seed(0)
    images = torch.rand(2, 3, 64, 64)
    together = features.encode(images)
    kept = [features.pack(features.encode(image[None]).to(torch.float64)) for image in images]
    joined = features.unpack([torch.cat(parts) for parts in zip(*kept, strict=True)]).to(torch.float32)
    assert sum(tensor.numel() for tensor in kept[0]) == features.numbers_per_image((64, 64))
    for name in ("encoder_maps", "decoder_maps"):
        for expected, x in zip(getattr(together, name), getattr(joined, name), strict=True):
            torch.testing.assert_close(x, expected, rtol=1e-4, atol=1e-4)
    second = together.map(lambda x: x[1:])
    torch.testing.assert_close(second.latent, joined.latent[1:], rtol=1e-4, atol=1e-5)


def test_other_depths_have_other_strides() -> None:
    features = build_diffusion(
        {
            "down_block_types": ["DownEncoderBlock2D"] * 3,
            "up_block_types": ["UpDecoderBlock2D"] * 3,
            "block_out_channels": [8, 8, 16],
            "layers_per_block": 1,
            "norm_num_groups": 4,
        },
        {
            "down_block_types": ["CrossAttnDownBlock2D", "CrossAttnDownBlock2D", "DownBlock2D"],
            "up_block_types": ["UpBlock2D", "CrossAttnUpBlock2D", "CrossAttnUpBlock2D"],
            "block_out_channels": [8, 16, 16],
            "layers_per_block": 1,
            "norm_num_groups": 4,
            "cross_attention_dim": 12,
            "attention_head_dim": 2,
        },
    )
    with torch.no_grad():
        encoded = features.encode(torch.rand(1, 3, 64, 64))
        maps = features(encoded, torch.randn(1, 3, 12), torch.zeros(1, features.time_dim))
    assert features.strides == [64 // x.shape[-1] for x in maps] == [2, 4, 16, 8, 4, 4, 2]
    assert features.channels == [x.shape[1] for x in maps]
    assert (features.context_dim, features.time_dim) == (12, 32)


def test_odd_image_sizes_are_refused(features: DiffusionFeatures) -> None:
    with pytest.raises(UserError, match="20x16 pixels: height and width must be multiples of 8"):
        features.encode(torch.rand(1, 3, 20, 16))


def test_conditioner_starts_at_the_empty_prompt() -> None:
    torch.manual_seed(0)
    prompt, feature = torch.randn(1, 7, 6), torch.randn(2, 5)
    text, time = ImplicitConditioner(5, prompt, 8)(feature)
    empty_text, empty_time = EmptyConditioner(prompt, 8)(feature)
    assert torch.equal(text, prompt.expand(2, -1, -1)) and torch.equal(text, empty_text)
    assert torch.equal(time, torch.zeros(2, 8)) and torch.equal(time, empty_time)
    assert torch.equal(ImageConditioner(5, prompt, 8)(feature)[0], text)
    names = set(ImplicitConditioner(5, prompt, 8).state_dict())
    parts = {
        f"{part}.{name}"
        for part in ("clip_project", "time_embed_project")
        for name in ("linear.weight", "linear.bias", "positional_embedding")
    }
    assert names == parts | {"alpha_cond", "alpha_cond_time_embed"}
