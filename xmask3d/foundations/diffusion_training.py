"""Pre-training of the small Stable Diffusion: the autoencoder by reconstruction, the UNet by predicting noise.

A UNet of three million parameters that sees some ten thousand pictures learns little meaning from noise alone, so its
features at the points where the published system reads them also predict what the small CLIP and an ImageNet network
say about each place (as in REPA, arXiv 2410.06940); the linear heads for this are not kept.
"""

import numpy as np
import torch
import torch.nn.functional as F
from diffusers import AutoencoderKL, UNet2DConditionModel
from open_clip import CLIP
from torch import Tensor, nn
from torch.nn.attention import SDPBackend, sdpa_kernel
from tqdm import trange

from xmask3d.foundations.clip_training import encode_regions, image_patches, restore_trainer, set_rate, trainer_state
from xmask3d.foundations.dataset import Pool
from xmask3d.foundations.features import PATCH, patch_coverage
from xmask3d.foundations.vocabulary import CONCEPTS, sample_view_caption
from xmask3d.models.diffusion import shared_noise
from xmask3d.models.tokenizer import CompactTokenizer

SCALING_FACTOR = 0.18215
"""Stable Diffusion's; the latents are brought to its scale."""

VAE_CONFIG = {
    "down_block_types": ["DownEncoderBlock2D"] * 4,
    "up_block_types": ["UpDecoderBlock2D"] * 4,
    "block_out_channels": [8, 16, 32, 48],
    "layers_per_block": 2,
    "latent_channels": 4,
    "norm_num_groups": 2,
    "sample_size": 192,
    "scaling_factor": SCALING_FACTOR,
}
UNET_CONFIG = {
    "in_channels": 4,
    "out_channels": 4,
    "sample_size": 24,
    "block_out_channels": [32, 48, 64, 64],
    "layers_per_block": 2,
    "down_block_types": ["CrossAttnDownBlock2D"] * 3 + ["DownBlock2D"],
    "up_block_types": ["UpBlock2D"] + ["CrossAttnUpBlock2D"] * 3,
    "cross_attention_dim": 128,
    "attention_head_dim": 2,
    "norm_num_groups": 4,
}
# attention_head_dim counts heads, as in every Stable Diffusion 1.x configuration.


def hidden_states(clip: CLIP, tokens: Tensor) -> Tensor:
    """The text tower's last states after the final norm, N x context x width: the UNet's text condition."""
    x = clip.token_embedding(tokens) + clip.positional_embedding
    return clip.ln_final(clip.transformer(x, attn_mask=clip.attn_mask))


def make_vae() -> AutoencoderKL:
    """An autoencoder to train.

    It starts near a chain of plain resamplings: residual branches give nothing, other convolutions pass channels on;
    and with little noise in the latent. Both save it hundreds of steps in which it would paint everything grey.
    """
    vae = AutoencoderKL(**VAE_CONFIG)
    with torch.no_grad():
        vae.quant_conv.bias[vae.config.latent_channels :] = -6
        for name, layer in vae.named_modules():
            if name.endswith((".conv2", ".to_out.0")):
                layer.weight.zero_()
                layer.bias.zero_()
            elif name.endswith((".conv_shortcut", "samplers.0.conv", ".conv_in")):
                _pass_on(layer.weight)
    return vae


def _pass_on(weight: Tensor) -> None:
    """Let a convolution copy its first channels, plus half of its random mixture; further channels stay random."""
    random = weight.clone()
    nn.init.dirac_(weight)
    weight += random / 2
    weight[weight.shape[1] :] = random[weight.shape[1] :]


def train_vae(
    vae: AutoencoderKL,
    images: np.ndarray,
    *,
    steps: int,
    batch_size: int = 8,
    side: int = 64,
    learning_rate: float = 3e-3,
    kl_weight: float = 1e-4,
    seed: int = 0,
) -> float:
    """Reconstruct crops: absolute error of pixels, of hues and of edges, and a little KL. Returns the pixel error."""
    rng, picks = torch.Generator().manual_seed(seed), np.random.default_rng(seed)
    optimizer = torch.optim.AdamW(vae.parameters(), lr=learning_rate, weight_decay=1e-3, betas=(0.9, 0.98))
    average = 0.3
    bar = trange(steps, desc="autoencoder")
    for step in bar:
        set_rate(optimizer, learning_rate, step, steps, warmup=50)
        images_now = _crops(images, batch_size, side, picks)
        with torch.autocast("cpu", torch.bfloat16):
            moments = vae.quant_conv(vae.encoder(images_now))
            mean, log_variance = moments.float().chunk(2, 1)
            log_variance = log_variance.clamp(-20, 10)
            noise = torch.randn(mean.shape, generator=rng)
            out = vae.decoder(vae.post_quant_conv(mean + noise * (0.5 * log_variance).exp())).float()
        pixel = (out - images_now).abs().mean()
        tint = (_tint(out) - _tint(images_now)).abs().mean()
        edges = sum((out.diff(dim=d) - images_now.diff(dim=d)).abs().mean() for d in (2, 3))
        kl = 0.5 * (mean**2 + log_variance.exp() - 1 - log_variance).mean()
        optimizer.zero_grad(set_to_none=True)
        (pixel + 2 * tint + 0.5 * edges + kl_weight * kl).backward()
        nn.utils.clip_grad_norm_(vae.parameters(), 1.0)
        optimizer.step()
        average += 0.05 * (float(pixel.detach()) - average)
        if step % 20 == 0:
            bar.set_postfix(pixel=f"{average:.4f}")
    return average


@torch.no_grad()
def standardise_latents(vae: AutoencoderKL, images: np.ndarray) -> None:
    """Rescale the latent, in place and without changing any reconstruction, to the deviation of Stable Diffusion's."""
    x = torch.from_numpy(images[:: max(1, len(images) // 48)]).permute(0, 3, 1, 2).float() / 127.5 - 1
    mean = vae.quant_conv(vae.encoder(x)).chunk(2, 1)[0]
    center, deviation = mean.mean((0, 2, 3)), mean.std((0, 2, 3))
    target = 1 / SCALING_FACTOR
    # mean' = (mean - center) * target / deviation; the log-variance follows; the decoder's first convolution undoes it.
    factor = target / deviation
    weight, bias = vae.quant_conv.weight, vae.quant_conv.bias
    count = len(center)
    bias[:count] = (bias[:count] - center) * factor
    weight[:count] *= factor[:, None, None, None]
    bias[count:] += 2 * factor.log()
    vae.post_quant_conv.bias += torch.einsum("oihw,i->o", vae.post_quant_conv.weight, center)
    vae.post_quant_conv.weight /= factor[None, :, None, None]


@torch.no_grad()
def encode_latents(vae: AutoencoderKL, images: np.ndarray, batch_size: int = 16) -> Tensor:
    """Latents as the UNet takes them: N x side x side x 3 uint8 to N x 4 x side/8 x side/8 float16."""
    parts = []
    for start in trange(0, len(images), batch_size, desc="latents"):
        x = torch.from_numpy(images[start : start + batch_size]).permute(0, 3, 1, 2).float() / 127.5 - 1
        with torch.autocast("cpu", torch.bfloat16):
            mean = vae.quant_conv(vae.encoder(x)).chunk(2, 1)[0]
        parts.append((mean.float() * SCALING_FACTOR).half())
    return torch.cat(parts)


@torch.no_grad()
def region_embeddings(clip: CLIP, pool: Pool, batch_size: int = 64) -> Tensor:
    """CLIP embeddings of all regions of a pool, normalised: N x regions x D float16."""
    parts = []
    for start in trange(0, len(pool), batch_size, desc="region embeddings"):
        images = torch.from_numpy(pool.images[start : start + batch_size]).permute(0, 3, 1, 2).float() / 255
        maps = torch.from_numpy(pool.regions[start : start + batch_size])
        visible = patch_coverage(maps, pool.concepts.shape[1], PATCH) > 0
        with torch.autocast("cpu", torch.bfloat16):
            features = encode_regions(clip.visual, image_patches(clip.visual, images), visible).regions
        parts.append(F.normalize(features.float(), dim=-1).half())
    return torch.cat(parts)


def unet_taps(unet: UNet2DConditionModel, latent: Tensor, time: Tensor, context: Tensor) -> tuple[Tensor, list[Tensor]]:
    """The UNet's output and the four maps that the published system reads: inputs of each up level's last block."""
    taps: list[Tensor] = []
    hooks = [
        block.resnets[-1].register_forward_pre_hook(lambda _, inputs: taps.append(inputs[0]))
        for block in unet.up_blocks
    ]
    try:
        return unet(latent, time, context).sample, taps
    finally:
        for hook in hooks:
            hook.remove()


class UnetTrainer:
    """Steps of UNet training.

    Args:
        latents: N x 4 x 24 x 24. regions: N x R x D CLIP embeddings of the regions. teacher: N x C x 12 x 12.
    """

    def __init__(
        self,
        unet: UNet2DConditionModel,
        clip: CLIP,
        tokenizer: CompactTokenizer,
        pool: Pool,
        latents: Tensor,
        regions: Tensor,
        teacher: Tensor,
        *,
        steps: int,
        batch_size: int = 24,
        crop: int = 16,
        learning_rate: float = 2e-3,
        seed: int = 0,
    ) -> None:
        self.unet, self.clip, self.tokenizer, self.pool = unet, clip, tokenizer, pool
        self.latents, self.regions, self.teacher = latents, regions, teacher
        self.steps, self.batch_size, self.crop, self.learning_rate = steps, batch_size, crop, learning_rate
        channels = [block.resnets[-1].in_channels for block in unet.up_blocks]
        self.dims = (regions.shape[-1], teacher.shape[1])
        self.heads = nn.ModuleList(nn.Conv2d(c, sum(self.dims), 1) for c in channels)
        self.optimizers = [
            torch.optim.AdamW(
                [*unet.parameters(), *self.heads.parameters()], lr=learning_rate, weight_decay=0.01, betas=(0.9, 0.98)
            )
        ]
        self.rng = torch.Generator().manual_seed(seed)
        self.words = np.random.default_rng(seed)
        betas = torch.linspace(0.00085**0.5, 0.012**0.5, 1000) ** 2
        self.signal = (1 - betas).cumprod(0)
        self.noise = shared_noise(4)
        self.step = 0

    def train_step(self) -> dict[str, float]:
        """One optimisation step; returns the losses."""
        set_rate(self.optimizers[0], self.learning_rate, self.step, self.steps, warmup=100)
        rows = torch.randint(len(self.pool), (self.batch_size,), generator=self.rng)
        last_tenth = self.step > 0.9 * self.steps
        latent, targets, weight = self._targets(rows, self.latents.shape[-1] if last_tenth else self.crop)
        # Half of the batch at the step where features are read, a quarter at early steps, a quarter at all.
        count = len(rows)
        time = torch.zeros(count, dtype=torch.long)
        quarter = count // 4
        time[2 * quarter : 3 * quarter] = torch.randint(100, (quarter,), generator=self.rng)
        time[3 * quarter :] = torch.randint(1000, (count - 3 * quarter,), generator=self.rng)
        noise = torch.randn(latent.shape, generator=self.rng)
        fixed = F.interpolate(self.noise, latent.shape[-2:], mode="bicubic", align_corners=False)
        noise[:quarter] = fixed
        share = self.signal[time].view(-1, 1, 1, 1)
        noisy = share.sqrt() * latent + (1 - share).sqrt() * noise
        # The backward pass of fused attention is several times slower on CPUs for such short sequences.
        with sdpa_kernel(SDPBackend.MATH):
            output, taps = unet_taps(self.unet, noisy, time, self._context(rows))
        # The shared noise of the first quarter never changes: nothing to predict there.
        losses = {"noise": F.mse_loss(output[quarter:], noise[quarter:])}
        early = 2 * quarter + quarter // 2
        for number, (tap, head) in enumerate(zip(taps, self.heads, strict=True)):
            losses[f"features{number}"] = 0.5 * self._distance(head(tap[:early]), targets[:early], weight[:early])
        self.optimizers[0].zero_grad(set_to_none=True)
        sum(losses.values()).backward()
        nn.utils.clip_grad_norm_(self.unet.parameters(), 1.0)
        self.optimizers[0].step()
        self.step += 1
        return {name: float(value.detach()) for name, value in losses.items()}

    def state(self) -> dict:
        """All that the next step depends on, for `restore`."""
        return trainer_state(self, {"unet": self.unet, "heads": self.heads})

    def restore(self, state: dict) -> None:
        """Go on where `state` was taken."""
        restore_trainer(self, {"unet": self.unet, "heads": self.heads}, state)

    def _targets(self, rows: Tensor, size: int) -> tuple[Tensor, Tensor, Tensor]:
        """Cropped and flipped latents B x 4 x s x s, targets B x C x s x s, and where a region is: B x 1 x s x s."""
        latent = self.latents[rows].float()
        maps = torch.from_numpy(self.pool.regions[rows.numpy()]).long()
        side = latent.shape[-1]
        stride = maps.shape[-1] // side
        # The region at the middle of each latent cell stands for the cell.
        maps = maps[:, stride // 2 :: stride, stride // 2 :: stride]
        known = (maps < 255)[:, None]
        painted = (
            self.regions[rows]
            .float()
            .gather(1, maps.clamp(max=self.regions.shape[1] - 1).flatten(1)[..., None].expand(-1, -1, self.dims[0]))
        )
        painted = painted.transpose(1, 2).unflatten(2, (side, side)) * known
        teacher = F.interpolate(self.teacher[rows].float(), (side, side), mode="bilinear", align_corners=False)
        everything = torch.cat([latent, painted, teacher, known.float()], 1)
        top, left = (2 * int(torch.randint((side - size) // 2 + 1, (1,), generator=self.rng)) for _ in range(2))
        everything = everything[:, :, top : top + size, left : left + size]
        latent, targets, weight = everything.split([latent.shape[1], sum(self.dims), 1], 1)
        return latent, targets, weight

    def _distance(self, predicted: Tensor, targets: Tensor, weight: Tensor) -> Tensor:
        """One minus the cosine, for the CLIP and the ImageNet part, at the resolution of the prediction."""
        if predicted.shape[-1] < targets.shape[-1]:
            targets = F.adaptive_avg_pool2d(targets, predicted.shape[-2:])
            weight = F.adaptive_avg_pool2d(weight, predicted.shape[-2:])
        parts = zip(predicted.split(self.dims, 1), targets.split(self.dims, 1), strict=True)
        regions, teacher = (1 - F.cosine_similarity(p, t, dim=1) for p, t in parts)
        return 2 * (regions * weight[:, 0]).sum() / weight.sum().clamp(min=1) + 0.5 * teacher.mean()

    @torch.no_grad()
    def _context(self, rows: Tensor) -> Tensor:
        """Text conditions: the empty prompt for most, a sentence about the view for the others."""
        names = list(CONCEPTS)
        texts = []
        for row in rows.tolist():
            things = [
                (names[c], kind)
                for c, kind in zip(self.pool.concepts[row], self.pool.kinds[row], strict=False)
                if c >= 0
            ]
            texts.append(sample_view_caption(self.words, things) if self.words.random() < 0.4 else "")
        tokens = self.tokenizer(texts)
        return hidden_states(self.clip, tokens)


def _tint(images: Tensor) -> Tensor:
    """What differs from grey."""
    return images - images.mean(1, keepdim=True)


def _crops(images: np.ndarray, count: int, side: int, rng: np.random.Generator) -> Tensor:
    """Random crops, flipped at random: count x 3 x side x side in [-1, 1]."""
    rows = rng.integers(len(images), size=count)
    offsets = rng.integers(images.shape[1] - side + 1, size=(count, 2))
    crops = np.stack([images[r, y : y + side, x : x + side] for r, (y, x) in zip(rows, offsets, strict=True)])
    if rng.random() < 0.5:
        crops = crops[:, :, ::-1].copy()
    return torch.from_numpy(crops).permute(0, 3, 1, 2).float() / 127.5 - 1
