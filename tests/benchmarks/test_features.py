import torch

from tests.helpers.diffusion import SMALL_UNET_1, SMALL_VAE, recorded_networks
from xmask3d.benchmarks.features import HEADER, measure, row, whole_maps
from xmask3d.models.diffusion import DiffusionFeatures


def test_whole_and_truncated_networks_give_the_same_maps() -> None:
    vae, unet = recorded_networks()
    torch.manual_seed(0)
    arguments = torch.rand(2, 3, 32, 64), torch.randn(2, 5, 64), torch.randn(2, 128)
    with torch.no_grad():
        expected = whole_maps(vae, unet)(*arguments)
        features = DiffusionFeatures(vae, unet)
        actual = features(features.encode(arguments[0]), *arguments[1:])
    for x, y in zip(actual, expected, strict=True):
        torch.testing.assert_close(x, y, rtol=1e-4, atol=1e-4)


def test_measurements_are_of_real_runs() -> None:
    results = [
        measure(variant, size=64, repeats=1, vae_config=SMALL_VAE, unet_config=SMALL_UNET_1)
        for variant in ("whole", "truncated", "encoded")
    ]
    for result in results:
        assert result.step_cpu > result.forward_cpu > 0
        assert result.step > 0 and result.peak > 0.05
        assert row(result).count("|") == HEADER[0].count("|")
