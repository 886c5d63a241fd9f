import numpy as np
import torch
from diffusers import AutoencoderKL, UNet2DConditionModel

from xmask3d.foundations.clip_training import make_tokenizer, model_config
from xmask3d.foundations.dataset import Pool
from xmask3d.foundations.diffusion_training import (
    SCALING_FACTOR,
    UNET_CONFIG,
    VAE_CONFIG,
    UnetTrainer,
    encode_latents,
    make_vae,
    standardise_latents,
    train_vae,
    unet_taps,
)
from xmask3d.foundations.features import TEACHER_DIM
from xmask3d.models.clip_weights import build_clip
from xmask3d.models.diffusion import DiffusionFeatures


def test_the_autoencoder_learns(pool: Pool) -> None:
    torch.manual_seed(0)
    vae = make_vae()
    before = train_vae(vae, pool.images, steps=1, batch_size=2, side=32)
    assert train_vae(vae, pool.images, steps=15, batch_size=2, side=32) < before


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


def test_taps_are_the_published_ones() -> None:
    torch.manual_seed(0)
    unet, vae = UNet2DConditionModel(**UNET_CONFIG).eval(), AutoencoderKL(**VAE_CONFIG)
    latent, context = torch.randn(1, 4, 16, 16), torch.randn(1, 32, 128)
    with torch.no_grad():
        _, taps = unet_taps(unet, latent, torch.zeros(1, dtype=torch.long), context)
        features = DiffusionFeatures(vae, unet, scaling_factor=SCALING_FACTOR)
        published = features.unet_maps(latent, context, torch.zeros(1, features.time_dim))
    for tap, expected in zip(taps, published, strict=True):
        torch.testing.assert_close(tap, expected, rtol=1e-4, atol=1e-5)


def test_a_unet_step_is_repeatable_and_goes_on_after_restore(pool: Pool) -> None:
    tokenizer = make_tokenizer()
    torch.manual_seed(0)
    vae, clip = AutoencoderKL(**VAE_CONFIG), build_clip(model_config(tokenizer.vocab_size))
    latents = encode_latents(vae, pool.images)
    assert latents.shape == (len(pool), 4, 24, 24)
    regions = torch.randn(len(pool), pool.concepts.shape[1], 128, generator=torch.Generator().manual_seed(1))
    teacher = torch.randn(len(pool), TEACHER_DIM, 12, 12, generator=torch.Generator().manual_seed(2))

    def trainer(seed: int = 0) -> UnetTrainer:
        torch.manual_seed(3)
        return UnetTrainer(
            UNet2DConditionModel(**UNET_CONFIG),
            clip,
            tokenizer,
            pool,
            latents,
            regions,
            teacher,
            steps=20,
            batch_size=4,
            seed=seed,
        )

    first, again = trainer(), trainer()
    losses = first.train_step()
    assert again.train_step() == losses and all(np.isfinite(value) for value in losses.values())
    resumed = trainer(seed=9)
    resumed.restore(first.state())
    assert resumed.train_step() == first.train_step()
