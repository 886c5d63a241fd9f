"""Convolutions in tiles of rows give what convolutions of whole maps give."""

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from tests.helpers.diffusion import recorded_networks
from xmask3d.models import row_tiling
from xmask3d.models.diffusion import DiffusionFeatures
from xmask3d.native import winograd


@pytest.fixture(autouse=True)
def narrow_tiles(monkeypatch) -> None:
    """Everything is worth it, and a tile has few rows."""
    monkeypatch.setattr(row_tiling, "_WORTH", 1)
    monkeypatch.setattr(row_tiling, "_TILE_BYTES", 1500)


@pytest.mark.parametrize("height", [1, 2, 3, 16, 17])
@pytest.mark.parametrize("kernel, stride, padding", [(3, 1, ()), (1, 1, ()), (3, 2, ()), (3, 2, (0, 1, 0, 1))])
def test_convolution(height: int, kernel: int, stride: int, padding: tuple[int, ...]) -> None:
    conv = nn.Conv2d(4, 8, kernel, stride, 0 if padding else kernel // 2).requires_grad_(False).double()
    x = torch.randn(2, 4, height, 9).double()
    before = x.clone()
    if padding and height < 2:
        pytest.skip("smaller than the kernel")
    whole = conv(F.pad((x * 2).relu(), padding) if padding else (x * 2).relu())
    ours = row_tiling.convolution(conv, x, lambda tile: tile.mul_(2).relu_(), padding=padding)
    torch.testing.assert_close(ours, whole, rtol=1e-12, atol=1e-12)
    assert torch.equal(x, before)


@pytest.mark.skipif(bool(winograd.failure()), reason=winograd.failure())
@pytest.mark.parametrize("height", [1, 4, 19])
def test_convolution_with_fewer_multiplications(height: int, monkeypatch) -> None:
    monkeypatch.setattr(winograd, "_CHANNELS", 1)
    monkeypatch.setattr(winograd, "_TILES", 0)
    tiles_taken = []
    convolve = winograd.convolve
    monkeypatch.setattr(winograd, "convolve", lambda *a, **k: tiles_taken.append(k["above"]) or convolve(*a, **k))
    conv = nn.Conv2d(4, 8, 3, padding=1).requires_grad_(False)
    x = torch.randn(2, 4, height, 9)
    ours = row_tiling.convolution(conv, x, lambda tile: tile.mul_(2).relu_())
    torch.testing.assert_close(ours, conv((x * 2).relu()), rtol=1e-4, atol=1e-4)
    assert tiles_taken == [1, *[0] * (-(-height // 4) - 1)]


def test_channels_last_stays() -> None:
    conv = nn.Conv2d(4, 8, 3, padding=1).requires_grad_(False)
    x = torch.randn(2, 4, 16, 9).contiguous(memory_format=torch.channels_last)
    ours = row_tiling.convolution(conv, x)
    assert ours.is_contiguous(memory_format=torch.channels_last)
    torch.testing.assert_close(ours, conv(x), rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("affine", [True, False])
def test_normalisation(affine: bool) -> None:
    norm = nn.GroupNorm(4, 8, affine=affine)
    if affine:
        nn.init.normal_(norm.weight)
        nn.init.normal_(norm.bias)
    x = torch.randn(2, 8, 19, 7) * torch.linspace(0.1, 9, 19)[:, None] + 30  # tiles differ, mean far from 0
    with torch.no_grad():
        torch.testing.assert_close(row_tiling.normalisation(norm, x)(x.clone()), norm(x), rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("offset", [0, 10, 30])
def test_normalisation_rounds_once(offset: int) -> None:
    generator = torch.Generator().manual_seed(0)
    x = (torch.randn(1, 8, 32, 32, generator=generator) + offset).bfloat16()
    norm = nn.GroupNorm(4, 8).requires_grad_(False)
    exact = norm(x.float())
    tile = x.clone()
    ours = row_tiling.normalisation(norm.bfloat16(), x)(tile)
    assert ours.dtype == torch.bfloat16 and ours is tile
    assert (ours.float() - exact).norm() < 0.0025 * exact.norm()
    assert (ours.float() - exact).norm() < 1.05 * (norm(x).float() - exact).norm()


def test_normalisation_of_float32_writes_in_place() -> None:
    norm, x = nn.GroupNorm(2, 4).requires_grad_(False), torch.randn(1, 4, 5, 5) + 3
    tile = x.clone()
    assert row_tiling.normalisation(norm, x)(tile).data_ptr() == tile.data_ptr()
    mean, variance = row_tiling._moments(x, 2)
    scale = (variance + norm.eps).rsqrt()
    by_channel = [y.repeat_interleave(2, 1)[:, :, None, None] for y in (scale, -mean * scale)]
    assert torch.equal(tile, x * by_channel[0] + by_channel[1])


def test_encoding_in_bands_is_encoding(monkeypatch) -> None:
    vae, unet = recorded_networks()
    features = DiffusionFeatures(vae, unet, dtype=torch.float64)
    images = torch.rand(2, 3, 48, 40, generator=torch.Generator().manual_seed(0)).double()
    calls = []
    convolution = row_tiling.convolution
    monkeypatch.setattr(row_tiling, "convolution", lambda *a, **k: calls.append(a) or convolution(*a, **k))
    ours = features.encode(images)
    assert len(calls) > 10
    monkeypatch.setattr(row_tiling, "worthwhile", lambda *_: False)
    whole = features.encode(images)
    torch.testing.assert_close(ours.latent, whole.latent, rtol=1e-10, atol=1e-10)
    for part, expected in zip(
        (*ours.encoder_maps, *ours.decoder_maps), (*whole.encoder_maps, *whole.decoder_maps), strict=True
    ):
        torch.testing.assert_close(part, expected, rtol=1e-10, atol=1e-10)


def test_never_with_gradients(monkeypatch) -> None:
    x = torch.rand(1, 4, 8, 8)
    assert not row_tiling.worthwhile(x)
    with torch.no_grad():
        assert row_tiling.worthwhile(x)
        monkeypatch.setattr(row_tiling, "_WORTH", x.nbytes * 2)
        assert not row_tiling.worthwhile(x)
        assert row_tiling.worthwhile(x, channels=8)


def test_residual_block_with_a_time() -> None:
    unet = recorded_networks()[1].requires_grad_(False).double()
    resnet = unet.up_blocks[1].resnets[0]  # with a shortcut
    x = torch.randn(2, resnet.in_channels, 9, 8).double()
    time = torch.randn(2, unet.time_embedding.linear_2.out_features).double()
    assert resnet.conv_shortcut is not None
    with torch.no_grad():
        torch.testing.assert_close(row_tiling.residual_block(resnet, x, time), resnet(x, time), rtol=1e-10, atol=1e-10)
