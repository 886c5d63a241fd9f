import pytest
import torch
from diffusers import AutoencoderKL, UNet2DConditionModel

from tests.helpers.diffusion import SMALL_UNET_1
from tools.pretraining.alignment import Teachers
from tools.pretraining.autoencoder_training import (
    SCALING_FACTOR,
    VAE_CONFIG,
    VaeTrainer,
    make_vae,
    standardise_latents,
    tapped_blocks,
)
from tools.pretraining.dataset import Pool
from tools.pretraining.features import TEACHER_DIM
from xmask3d.models.diffusion import DiffusionFeatures


@pytest.fixture
def teachers(pool: Pool) -> Teachers:
    rng = torch.Generator().manual_seed(1)
    regions = torch.randn(len(pool), pool.concepts.shape[1], 128, generator=rng)
    return Teachers(pool, regions, torch.randn(len(pool), TEACHER_DIM, 12, 12, generator=rng))


def trainer(pool: Pool, teachers: Teachers, steps: int = 20, seed: int = 0) -> VaeTrainer:
    torch.manual_seed(0)
    return VaeTrainer(make_vae(), pool.images, teachers, steps=steps, batch_size=2, side=32, seed=seed)


def test_the_autoencoder_learns(pool: Pool, teachers: Teachers) -> None:
    training = trainer(pool, teachers, steps=40)
    image = torch.from_numpy(pool.images[:1]).permute(0, 3, 1, 2).float() / 127.5 - 1

    def error() -> float:
        with torch.no_grad():
            return float((training.vae(image).sample - image).abs().mean())

    before = error()
    losses = [training.train_step() for _ in range(40)]
    assert error() < 0.95 * before
    assert set(losses[0]) == {"pixel", "tint", "edges", "kl", *(f"features{i}" for i in range(4))}


def test_a_step_is_repeatable_and_goes_on_after_restore(pool: Pool, teachers: Teachers) -> None:
    first, again = trainer(pool, teachers), trainer(pool, teachers)
    assert first.train_step() == again.train_step()
    resumed = trainer(pool, teachers, seed=9)
    resumed.restore(first.state())
    assert resumed.train_step() == first.train_step()


def test_taps_are_the_maps_that_are_read(pool: Pool) -> None:
    torch.manual_seed(0)
    vae = AutoencoderKL(**VAE_CONFIG).eval()
    seen: list[torch.Tensor] = []
    for block in tapped_blocks(vae):
        block.register_forward_pre_hook(lambda _, inputs: seen.append(inputs[0]))
    image = torch.rand(1, 3, 64, 64)
    with torch.no_grad():
        vae.decode(vae.encode(image * 2 - 1).latent_dist.mean)
        features = DiffusionFeatures(vae, UNet2DConditionModel(**SMALL_UNET_1), scaling_factor=SCALING_FACTOR)
        encoded = features.encode(image)
    for tap, expected in zip(seen, (*encoded.encoder_maps, *encoded.decoder_maps), strict=False):
        torch.testing.assert_close(tap, expected, rtol=1e-4, atol=1e-5)


def test_standard_latents_reconstruct_alike(pool: Pool) -> None:
    torch.manual_seed(0)
    vae = AutoencoderKL(**VAE_CONFIG).eval()
    x = torch.from_numpy(pool.images[:2]).permute(0, 3, 1, 2).float() / 127.5 - 1
    with torch.no_grad():
        before = vae(x).sample
        standardise_latents(vae, pool.images)
        torch.testing.assert_close(vae(x).sample, before, rtol=1e-3, atol=1e-4)
        means = vae.encode(torch.from_numpy(pool.images).permute(0, 3, 1, 2).float() / 127.5 - 1).latent_dist.mean
    torch.testing.assert_close(means.std((0, 2, 3)) * SCALING_FACTOR, torch.ones(4), rtol=1e-3, atol=1e-3)
