import numpy as np
import torch
from diffusers import AutoencoderKL, UNet2DConditionModel

from tools.pretraining.alignment import Teachers
from tools.pretraining.autoencoder_training import SCALING_FACTOR, VAE_CONFIG, encode_latents
from tools.pretraining.clip_training import make_tokenizer, model_config
from tools.pretraining.dataset import Pool
from tools.pretraining.diffusion_training import UNET_CONFIG, UnetTrainer, unet_taps
from tools.pretraining.features import TEACHER_DIM
from xmask3d.models.diffusion import DiffusionFeatures
from xmask3d.models.loading.clip_weights import build_clip


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
            Teachers(pool, regions, teacher),
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
