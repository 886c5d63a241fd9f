"""Backbones of timm as image features, small and untrained."""

from functools import partial
from pathlib import Path

import pytest
import timm
import torch
from safetensors.torch import save_file
from torch import Tensor

from xmask3d.errors import UserError
from xmask3d.models.contracts import ImageFeatures, misfit
from xmask3d.models.timm_features import HalvedBackbone, timm_features

NAMES = ["test_vit", "test_vit2", "vit_small_patch16_dinov3", "test_efficientnet", "test_resnet"]


def features(name: str) -> HalvedBackbone:
    torch.manual_seed(0)
    made = timm_features(12, name)
    if hasattr(made.network, "blocks") and len(made.network.blocks) > 8:
        made.network.blocks = made.network.blocks[:8]  # of DINOv3, for time
        made.ends = [0, 2, 4, 6, 8]
    return made


@pytest.mark.parametrize("name", NAMES)
def test_the_contract(name: str) -> None:
    made, images = features(name), torch.rand(2, 3, 64, 96)
    assert misfit(made, ImageFeatures) is None
    assert set(made.state_dict()) == {"condition.weight", "condition.bias", "amount"}
    encoded = made.encode(images)
    packed = made.pack(encoded)
    assert all(len(tensor) == 2 and not tensor.requires_grad for tensor in packed)
    assert sum(tensor[0].numel() for tensor in packed) == made.numbers_per_image((64, 96))
    global_feature = torch.randn(2, 12, requires_grad=True)
    kept = made.unpack([tensor.bfloat16() for tensor in packed])
    assert all(tensor.dtype == torch.float32 for tensor in kept)
    plain = made(made.unpack(packed), global_feature)
    for one, channels, stride in zip(plain, made.channels, made.strides, strict=True):
        assert one.shape == (2, channels, 64 // stride, 96 // stride)
    with torch.no_grad():
        made.amount.fill_(0.5)
    maps = made(encoded, global_feature)
    same = [torch.equal(one, other) for one, other in zip(plain, maps, strict=True)]
    assert same == [True, True, False, False]  # the condition enters after the first half
    maps[3].square().mean().backward()
    for tensor in (global_feature, made.amount, made.condition.weight):
        assert tensor.grad is not None and tensor.grad.isfinite().all() and tensor.grad.abs().max() > 0
    assert all(parameter.grad is None for parameter in made.network.parameters())


@torch.no_grad()
def test_maps_of_a_transformer_are_those_of_timm() -> None:
    for name in ("test_vit2", "vit_small_patch16_dinov3"):
        made, images = features(name), torch.rand(1, 3, 64, 64)
        layers = [end - 1 for end in made.ends[1:]]
        expected = made.network.forward_intermediates(
            (images - made.mean) / made.std, indices=layers, norm=True, intermediates_only=True
        )
        maps = made(made.encode(images), torch.zeros(1, 12))
        torch.testing.assert_close(maps[2], expected[2])  # 4 x 4, as the tokens are
        torch.testing.assert_close(maps[3], torch.nn.functional.avg_pool2d(expected[3], 2))


@torch.no_grad()
def test_maps_of_a_convolutional_network_are_those_of_timm() -> None:
    for name in ("test_efficientnet", "test_resnet"):
        made, images = features(name), torch.rand(1, 3, 64, 64)
        expected = made.network((images - made.mean) / made.std)[-4:]
        for one, other in zip(made(made.encode(images), torch.zeros(1, 12)), expected, strict=True):
            torch.testing.assert_close(one, other)


@torch.no_grad()
def test_patches_of_fourteen_pixels_see_every_pixel(monkeypatch: pytest.MonkeyPatch) -> None:
    network = timm.models.VisionTransformer(
        img_size=28, patch_size=14, embed_dim=16, depth=4, num_heads=2, dynamic_img_size=True, num_classes=0
    )
    network.pretrained_cfg = {"mean": (0.5,) * 3, "std": (0.5,) * 3}
    monkeypatch.setattr(timm, "create_model", lambda *_, **__: network)
    made = timm_features(12, "vit_small_patch14_dinov2")
    sizes = [tuple(one.shape) for one in made(made.encode(torch.rand(1, 3, 96, 48)), torch.zeros(1, 12))]
    assert sizes == [(1, 16, 24, 12), (1, 16, 12, 6), (1, 16, 6, 3), (1, 16, 3, 1)]


def test_weights_of_a_file_and_of_the_package(tmp_path: Path) -> None:
    path = tmp_path / "vit.safetensors"
    tensors = {name: x.contiguous() for name, x in timm.create_model("test_vit", num_classes=0).state_dict().items()}
    save_file(tensors, path)
    loaded = timm_features(12, "test_vit", str(path)).network.state_dict()
    assert all(torch.equal(loaded[name], tensor) for name, tensor in tensors.items())

    made = timm_features(12, "tf_efficientnet_lite0", "package")
    assert made.channels == (24, 40, 112, 320)
    torch.testing.assert_close(made.mean.flatten(), torch.tensor([0.485, 0.456, 0.406]))
    red_and_grey = torch.full((2, 3, 64, 64), 0.4)
    red_and_grey[0, 0] = 0.9
    maps = made(made.encode(red_and_grey), torch.zeros(2, 12))
    assert all(spread(one) > 1e-3 for one in maps)  # trained features tell them apart, in numbers of a sane size
    assert all(one.abs().max() < 500 for one in maps)


def spread(features: Tensor) -> float:
    return (features[0] - features[1]).abs().mean().item()


def test_what_cannot_be_had_is_one_line(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refused(message: str, *arguments: str) -> None:
        with pytest.raises(UserError, match=message) as caught:
            timm_features(12, *arguments)
        assert "\n" not in str(caught.value)

    refused("timm's no_such_network", "no_such_network")
    refused("are those of tf_efficientnet_lite0, not of resnet50", "resnet50", "package")
    refused("no such file; or write hub or package", "test_vit", "nowhere.pth")
    (tmp_path / "broken.pth").write_bytes(b"no weights")
    refused("timm's test_vit with weights .*broken.pth", "test_vit", str(tmp_path / "broken.pth"))
    monkeypatch.setattr(timm, "create_model", partial(timm.create_model, out_indices=(1, 2)))
    refused("no maps of strides 4, 8, 16 and 32", "test_efficientnet")
