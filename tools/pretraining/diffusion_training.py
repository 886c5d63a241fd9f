"""Pre-training of the small diffusion UNet: it predicts noise, and its maps predict the objects in each place."""

import numpy as np
import torch
import torch.nn.functional as F
from diffusers import UNet2DConditionModel
from open_clip import CLIP
from torch import Tensor, nn
from torch.nn.attention import SDPBackend, sdpa_kernel
from tqdm import trange

from tools.pretraining.alignment import AlignmentHeads, Teachers
from tools.pretraining.clip_regions import encode_regions, image_patches
from tools.pretraining.clip_training import restore_trainer, set_rate, trainer_state
from tools.pretraining.dataset import Pool
from tools.pretraining.features import PATCH, patch_coverage
from tools.pretraining.vocabulary import CONCEPTS, sample_view_caption
from xmask3d.models.diffusion import shared_noise
from xmask3d.models.tokenizer import CompactTokenizer

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
    """Return the text tower's last states after the final norm, N x context x width: the UNet's text condition."""
    x = clip.token_embedding(tokens) + clip.positional_embedding
    return clip.ln_final(clip.transformer(x, attn_mask=clip.attn_mask))


@torch.no_grad()
def region_embeddings(clip: CLIP, pool: Pool, batch_size: int = 64) -> Tensor:
    """Return CLIP's embeddings of all regions of a pool, normalised: N x regions x D float16."""
    clip.eval()  # the norm of its stem has statistics of its own
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
    """Return the UNet's output and the four maps that the published system reads: each up level's last block inputs."""
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
    """Training of the UNet.

    Args:
        pool: views. latents: of them, N x 4 x 24 x 24. teachers: of the same views.
    """

    def __init__(
        self,
        unet: UNet2DConditionModel,
        clip: CLIP,
        tokenizer: CompactTokenizer,
        pool: Pool,
        latents: Tensor,
        teachers: Teachers,
        *,
        steps: int,
        batch_size: int = 24,
        crop: int = 16,
        learning_rate: float = 2e-3,
        seed: int = 0,
    ) -> None:
        self.unet, self.clip, self.tokenizer, self.pool = unet, clip, tokenizer, pool
        self.latents, self.teachers = latents, teachers
        self.steps, self.batch_size, self.crop, self.learning_rate = steps, batch_size, crop, learning_rate
        channels = [block.resnets[-1].in_channels for block in unet.up_blocks]
        self.heads = AlignmentHeads(channels, teachers.dims)
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
        """Take one optimisation step; returns the losses."""
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
        for number, distance in enumerate(self.heads([tap[:early] for tap in taps], targets[:early], weight[:early])):
            losses[f"features{number}"] = distance
        self.optimizers[0].zero_grad(set_to_none=True)
        sum(losses.values()).backward()
        nn.utils.clip_grad_norm_(self.unet.parameters(), 1.0)
        self.optimizers[0].step()
        self.step += 1
        return {name: float(value.detach()) for name, value in losses.items()}

    def state(self) -> dict:
        """Return everything that the next step depends on, for `restore`."""
        return trainer_state(self, {"unet": self.unet, "heads": self.heads})

    def restore(self, state: dict) -> None:
        """Resume from the step at which `state` was taken."""
        restore_trainer(self, {"unet": self.unet, "heads": self.heads}, state)

    def _targets(self, rows: Tensor, size: int) -> tuple[Tensor, Tensor, Tensor]:
        """Return latents, cropped and flipped, B x 4 x s x s, targets B x C x s x s, and region masks B x 1 x s x s."""
        latent = self.latents[rows].float()
        side = latent.shape[-1]
        everything = torch.cat([latent, *self.teachers.paint(rows, side)], 1)
        top, left = (2 * int(torch.randint((side - size) // 2 + 1, (1,), generator=self.rng)) for _ in range(2))
        everything = everything[:, :, top : top + size, left : left + size]
        channels = latent.shape[1]
        return everything[:, :channels], everything[:, channels:-1], everything[:, -1:]

    @torch.no_grad()
    def _context(self, rows: Tensor) -> Tensor:
        """Draw text conditions: the empty prompt for most, a sentence about the view for the others."""
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
