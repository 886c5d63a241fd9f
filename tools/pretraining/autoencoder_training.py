"""Pre-training of the small autoencoder: it reconstructs, and its maps predict the objects in each place."""

from typing import Any

import numpy as np
import torch
from diffusers import AutoencoderKL
from torch import Tensor, nn
from tqdm import trange

from tools.pretraining.alignment import AlignmentHeads, Teachers
from tools.pretraining.clip_training import restore_trainer, set_rate, trainer_state

SCALING_FACTOR = 0.18215
"""Stable Diffusion's; the latents are brought to its scale."""

VAE_CONFIG: dict[str, Any] = {
    "down_block_types": ["DownEncoderBlock2D"] * 4,
    "up_block_types": ["UpDecoderBlock2D"] * 4,
    "block_out_channels": [12, 24, 48, 64],
    "layers_per_block": 2,
    "latent_channels": 4,
    "norm_num_groups": 2,
    "sample_size": 192,
    "scaling_factor": SCALING_FACTOR,
}

TARGET_STRIDE = 4
"""Pixels a cell of the finest maps that are read, and so of what the teachers say."""


def make_vae() -> AutoencoderKL:
    """Make an autoencoder to train.

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
    """Make a convolution copy its first channels, plus half of its random mixture; further channels stay random."""
    random = weight.clone()
    nn.init.dirac_(weight)
    weight += random / 2
    weight[weight.shape[1] :] = random[weight.shape[1] :]


def tapped_blocks(vae: AutoencoderKL) -> list[nn.Module]:
    """Return the residual blocks whose inputs the published system reads: two of the encoder, two of the decoder."""
    encoder = [block.resnets[-1] for block in vae.encoder.down_blocks[-2:]]
    return encoder + [block.resnets[-1] for block in vae.decoder.up_blocks[:2]]


class VaeTrainer:
    """Training of the autoencoder on pixels, hues and edges of crops, a little KL, and the objects in each place.

    Args:
        images: N x S x S x 3 uint8.
        teachers: teachers' targets for the same views.
        steps: steps of the complete training, from which the learning rate follows.
        side: pixels of a crop; crops start at multiples of `TARGET_STRIDE`.
        kl_weight, alignment_weight: weights of these losses beside the absolute error of pixels in [-1, 1].
    """

    def __init__(
        self,
        vae: AutoencoderKL,
        images: np.ndarray,
        teachers: Teachers,
        *,
        steps: int,
        batch_size: int = 8,
        side: int = 96,
        learning_rate: float = 3e-3,
        kl_weight: float = 1e-4,
        alignment_weight: float = 0.1,
        seed: int = 0,
    ) -> None:
        self.vae, self.images, self.teachers = vae, images, teachers
        self.steps, self.batch_size, self.side, self.learning_rate = steps, batch_size, side, learning_rate
        self.kl_weight, self.alignment_weight = kl_weight, alignment_weight
        taps = tapped_blocks(vae)
        self.heads = AlignmentHeads([block.in_channels for block in taps], teachers.dims)
        self.optimizers = [
            torch.optim.AdamW(
                [*vae.parameters(), *self.heads.parameters()], lr=learning_rate, weight_decay=1e-3, betas=(0.9, 0.98)
            )
        ]
        self.rng = torch.Generator().manual_seed(seed)
        self.words = np.random.default_rng(seed)
        self.step = 0

    def train_step(self) -> dict[str, float]:
        """Take one optimisation step; returns the losses."""
        set_rate(self.optimizers[0], self.learning_rate, self.step, self.steps, warmup=50)
        images, targets, weight = self._crops()
        out, taps, mean, log_variance = self._reconstruct(images)
        losses = {
            "pixel": (out - images).abs().mean(),
            "tint": 2 * (_tint(out) - _tint(images)).abs().mean(),
            "edges": 0.5 * sum((out.diff(dim=d) - images.diff(dim=d)).abs().mean() for d in (2, 3)),
            "kl": self.kl_weight * 0.5 * (mean**2 + log_variance.exp() - 1 - log_variance).mean(),
        }
        for number, distance in enumerate(self.heads(taps, targets, weight)):
            losses[f"features{number}"] = self.alignment_weight * distance
        self.optimizers[0].zero_grad(set_to_none=True)
        torch.stack(list(losses.values())).sum().backward()
        nn.utils.clip_grad_norm_(self.vae.parameters(), 1.0)
        self.optimizers[0].step()
        self.step += 1
        return {name: float(value.detach()) for name, value in losses.items()}

    def state(self) -> dict:
        """Return everything that the next step depends on, for `restore`."""
        return trainer_state(self, {"vae": self.vae, "heads": self.heads})

    def restore(self, state: dict) -> None:
        """Resume from the step at which `state` was taken."""
        restore_trainer(self, {"vae": self.vae, "heads": self.heads}, state)

    def _reconstruct(self, images: Tensor) -> tuple[Tensor, list[Tensor], Tensor, Tensor]:
        """Return reconstructed images, the maps that are read, and mean and log-variance of the latent."""
        taps: list[Tensor] = []
        hooks = [
            block.register_forward_pre_hook(lambda _, inputs: taps.append(inputs[0]))
            for block in tapped_blocks(self.vae)
        ]
        try:
            with torch.autocast("cpu", torch.bfloat16):
                moments = self.vae.quant_conv(self.vae.encoder(images)).float()
                mean, log_variance = moments.chunk(2, 1)
                log_variance = log_variance.clamp(-20, 10)
                noise = torch.randn(mean.shape, generator=self.rng)
                latent = mean + noise * (0.5 * log_variance).exp()
                out = self.vae.decoder(self.vae.post_quant_conv(latent)).float()
        finally:
            for hook in hooks:
                hook.remove()
        return out, [tap.float() for tap in taps], mean, log_variance

    def _crops(self) -> tuple[Tensor, Tensor, Tensor]:
        """Draw random crops, some flipped: images B x 3 x s x s in [-1, 1], targets and weights as `Teachers.paint`."""
        rows = torch.randint(len(self.images), (self.batch_size,), generator=self.rng)
        cells, whole = self.side // TARGET_STRIDE, self.images.shape[1] // TARGET_STRIDE
        top, left = (int(torch.randint(whole - cells + 1, (1,), generator=self.rng)) for _ in range(2))
        y, x = top * TARGET_STRIDE, left * TARGET_STRIDE
        pixels = torch.from_numpy(self.images[rows.numpy(), y : y + self.side, x : x + self.side])
        images = pixels.permute(0, 3, 1, 2).float() / 127.5 - 1
        painted = torch.cat(self.teachers.paint(rows, whole), 1)[:, :, top : top + cells, left : left + cells]
        if torch.rand((), generator=self.rng) < 0.5:
            images, painted = images.flip(-1), painted.flip(-1)
        return images, painted[:, :-1], painted[:, -1:]


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
    """Encode latents as the UNet takes them: N x side x side x 3 uint8 to N x 4 x side/8 x side/8 float16."""
    parts = []
    for start in trange(0, len(images), batch_size, desc="latents"):
        x = torch.from_numpy(images[start : start + batch_size]).permute(0, 3, 1, 2).float() / 127.5 - 1
        with torch.autocast("cpu", torch.bfloat16):
            mean = vae.quant_conv(vae.encoder(x)).chunk(2, 1)[0]
        parts.append((mean.float() * SCALING_FACTOR).half())
    return torch.cat(parts)


def _tint(images: Tensor) -> Tensor:
    """Return the difference of a colour from grey."""
    return images - images.mean(1, keepdim=True)
