"""Features of a frozen text-to-image diffusion model, conditioned on the 3D global feature (arXiv 2411.13243)."""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from xmask3d.errors import UserError
from xmask3d.memory import LARGE, keep_little_freed_memory
from xmask3d.models.activation_checkpointing import multiply_less, residual_block, use_checkpointing
from xmask3d.models.frozen import ForeignNetwork, FrozenNetworks

# Noise variance of the first of Stable Diffusion's 1000 noising steps; features are taken at that step.
FIRST_BETA = 0.00085


def shared_noise(channels: int = 4, size: int = 64) -> Tensor:
    """Return the fixed noise sample that is used for every image, 1 x channels x size x size."""
    return torch.randn(1, channels, size, size, generator=torch.Generator("cpu").manual_seed(42))


@dataclass(frozen=True)
class EncodedImages:
    """Outputs that depend on the images alone: they are constant, carry no gradient, and can be cached.

    Attributes:
        latent: B x 4 x h x w, scaled mean of the VAE's posterior.
        encoder_maps: maps of the VAE encoder, finest first, B x C_i x H/stride_i x W/stride_i.
        decoder_maps: maps of the VAE decoder, coarsest first.
    """

    latent: Tensor
    encoder_maps: tuple[Tensor, ...]
    decoder_maps: tuple[Tensor, ...]

    def map(self, function: Callable[[Tensor], Tensor]) -> "EncodedImages":
        """Apply `function` to every tensor, for example to move them or to select images."""
        return EncodedImages(
            function(self.latent),
            tuple(function(item) for item in self.encoder_maps),
            tuple(function(item) for item in self.decoder_maps),
        )

    def to(self, target: torch.device | torch.dtype) -> "EncodedImages":
        """Move every tensor to a device or a dtype."""
        return self.map(lambda item: item.to(target))


class DiffusionFeatures(FrozenNetworks):
    """Feature maps of a frozen Stable Diffusion model.

    The maps are the inputs of these residual blocks, in this order: the last block of the two deepest levels of the VAE
    encoder; the last block of every up level of the UNet, after the skip concatenation, deepest first; the last block
    of the two deepest levels of the VAE decoder. All layers after the last map are removed from the networks.

    The weights take no gradient; `forward` passes gradients to the conditions.
    """

    vae: ForeignNetwork
    unet: ForeignNetwork

    def __init__(
        self,
        vae: ForeignNetwork,
        unet: ForeignNetwork,
        *,
        noise: Tensor | None = None,
        first_beta: float = FIRST_BETA,
        scaling_factor: float = 0.18215,
        checkpointing: bool = False,
        dtype: torch.dtype | None = None,
        channels_last: bool = False,
    ) -> None:
        """Cut off and freeze the networks.

        Args:
            vae: complete or truncated `AutoencoderKL`; truncated in place.
            unet: complete or truncated `UNet2DConditionModel`; truncated in place.
            noise: 1 x 4 x h x w, resized if the latent has another size; `shared_noise()` by default.
            first_beta: noise variance of the step at which features are taken.
            scaling_factor: factor of the latent.
            checkpointing: recompute the UNet's activations in the backward pass instead of keeping them.
            dtype: dtype of the weights and of the computation, such as bfloat16; results have the dtype of the inputs.
            channels_last: keep channels innermost, which is faster on some devices.
        """
        super().__init__()
        truncate_vae(vae)
        truncate_unet(unet)
        if not checkpointing:  # which keeps even less
            use_checkpointing(unet)
        self.freeze("vae", vae)
        self.freeze("unet", unet)
        noise = shared_noise(unet.config.in_channels) if noise is None else noise
        self.register_buffer("noise", noise, persistent=False)
        self.noise: Tensor
        self.signal_rate = (1 - first_beta) ** 0.5
        self.noise_rate = first_beta**0.5
        self.scaling_factor = scaling_factor
        self.checkpointing = checkpointing
        self.memory_format: torch.memory_format = torch.channels_last if channels_last else torch.contiguous_format
        for network in self.frozen_networks():
            # diffusers' `to` warns about a call that does not change the dtype.
            nn.Module.to(network, dtype=dtype, memory_format=self.memory_format)  # type: ignore[call-overload]
            multiply_less(network)

    @property
    def channels(self) -> list[int]:
        """Channels of the maps, in their order."""
        blocks = [block.resnets[-1] for block in self.vae.encoder.down_blocks[-2:]]
        channels = [block.in_channels for block in blocks]
        # The last block of the last up level was removed; its input would be the level's output and the very first
        # skip.
        *whole, last = self.unet.up_blocks
        channels += [block.resnets[-1].in_channels for block in whole]
        channels.append(last.resnets[-1].out_channels + self.unet.conv_in.out_channels)
        channels += [block.resnets[-1].out_channels for block in self.vae.decoder.up_blocks[:2]]
        return channels

    @property
    def strides(self) -> list[int]:
        """Pixels of the image per cell of each map, in their order."""
        deepest = 2 ** (len(self.vae.encoder.down_blocks) - 1)
        levels = len(self.unet.up_blocks)
        unet = [deepest * 2 ** (levels - 1 - level) for level in range(levels)]
        return [deepest // 2, deepest, *unet, deepest, deepest // 2]

    @property
    def time_dim(self) -> int:
        """Size of the UNet's time embedding."""
        return self.unet.time_embedding.linear_2.out_features

    @property
    def context_dim(self) -> int:
        """Channels of the UNet's text condition."""
        return self.unet.config.cross_attention_dim

    @property
    def image_multiple(self) -> int:
        """Divisor of allowed image heights and widths."""
        return 2 ** (len(self.vae.encoder.down_blocks) - 1)

    @torch.no_grad()
    def encode(self, images: Tensor) -> EncodedImages:
        """Compute everything that the conditions do not change.

        Args:
            images: B x 3 x H x W in [0, 1].

        Raises:
            UserError: the size is not divisible by the VAE's stride.
        """
        if any(size % self.image_multiple for size in images.shape[-2:]):
            size = "x".join(str(size) for size in images.shape[-2:])
            raise UserError(f"images of {size} pixels: height and width must be multiples of {self.image_multiple}")
        if images.is_cpu and self._widest_bytes(images) >= 4 * LARGE:  # for Stable Diffusion, from 512 x 512 pixels on
            keep_little_freed_memory()
        x = (images * 2 - 1).to(self.vae.dtype).contiguous(memory_format=self.memory_format)
        mean, encoder_maps = self._encode_latent(x)
        decoder_maps = self._decode_latent(mean)
        encoded = EncodedImages(mean * self.scaling_factor, tuple(encoder_maps), tuple(decoder_maps))
        return encoded.to(images.dtype)

    def pack(self, encoded: EncodedImages) -> list[Tensor]:
        """List the latent and the VAE's maps."""
        return [encoded.latent, *encoded.encoder_maps, *encoded.decoder_maps]

    def unpack(self, tensors: Sequence[Tensor]) -> EncodedImages:
        """Undo `pack`."""
        latent, *maps = tensors
        half = len(maps) // 2
        return EncodedImages(latent, tuple(maps[:half]), tuple(maps[half:]))

    def numbers_per_image(self, image_size: tuple[int, int]) -> int:
        """Count the numbers of `EncodedImages` for one image of a height and width."""
        height, width = image_size
        channels, strides = self.channels, self.strides
        picked = [0, 1, len(strides) - 2, len(strides) - 1]
        cells = sum(channels[i] * (height // strides[i]) * (width // strides[i]) for i in picked)
        return cells + 4 * (height // strides[1]) * (width // strides[1])

    def forward(self, encoded: EncodedImages, text_condition: Tensor, time_condition: Tensor) -> list[Tensor]:
        """Compute the feature maps of images under conditions.

        Args:
            encoded: B images.
            text_condition: B x T x context_dim, context of the cross-attentions.
            time_condition: B x time_dim, added to the time embedding.

        Returns:
            The maps in published order; those of the UNet pass gradients to the conditions.
        """
        unet_maps = self.unet_maps(self.add_noise(encoded.latent), text_condition, time_condition)
        return [*encoded.encoder_maps, *unet_maps, *encoded.decoder_maps]

    def add_noise(self, latent: Tensor) -> Tensor:
        """Return the latent, B x 4 x h x w, at the first noising step, always with the same noise."""
        noise = self.noise
        if noise.shape[-2:] != latent.shape[-2:]:
            noise = F.interpolate(noise, latent.shape[-2:], mode="bicubic", align_corners=False)
        return self.signal_rate * latent + self.noise_rate * noise.to(latent.dtype)

    def unet_maps(self, latent: Tensor, text_condition: Tensor, time_condition: Tensor) -> list[Tensor]:
        """Return the inputs of the last residual block of every up level; arguments as in `forward`."""
        unet, result_dtype, dtype = self.unet, text_condition.dtype, self.unet.dtype
        text = text_condition.to(dtype)
        time = unet.time_proj(latent.new_zeros(len(latent)))
        time = unet.time_embedding(time.to(dtype)) + time_condition.to(dtype)
        x = unet.conv_in(latent.to(dtype).contiguous(memory_format=self.memory_format))
        x, skips = self._descend(x, time, text)
        x = self._recompute(unet.mid_block, x, time, text)
        return [item.to(result_dtype) for item in self._ascend(x, skips, time, text)]

    def _descend(self, x: Tensor, time: Tensor, text: Tensor) -> tuple[Tensor, list[Tensor]]:
        skips = [x]
        for block in self.unet.down_blocks:
            for layer in _layers(block):
                x = self._recompute(layer, x, time, text)
                skips.append(x)
            for downsampler in block.downsamplers or ():
                x = downsampler(x)
                skips.append(x)
        return x, skips

    def _ascend(self, x: Tensor, skips: list[Tensor], time: Tensor, text: Tensor) -> list[Tensor]:
        maps = []
        per_level = self.unet.config.layers_per_block + 1
        for block in self.unet.up_blocks:
            layers = list(_layers(block))
            for index in range(per_level):
                x = torch.cat([x, skips.pop()], dim=1)
                if index == per_level - 1:
                    maps.append(x)
                if index < len(layers):
                    x = self._recompute(layers[index], x, time, text)
            for upsampler in block.upsamplers or ():
                x = upsampler(x, skips[-1].shape[-2:])
        return maps

    def _recompute(self, layer: Callable[..., Tensor], x: Tensor, time: Tensor, text: Tensor) -> Tensor:
        if self.checkpointing and torch.is_grad_enabled():
            return checkpoint(layer, x, time, text, use_reentrant=False)
        return layer(x, time, text)

    def _widest_bytes(self, images: Tensor) -> int:
        """Return the bytes of a map at the images' own resolution."""
        batch, _, height, width = images.shape
        return batch * self.vae.encoder.conv_in.out_channels * height * width * self.vae.dtype.itemsize

    def _encode_latent(self, x: Tensor) -> tuple[Tensor, list[Tensor]]:
        encoder, maps = self.vae.encoder, []
        x = encoder.conv_in(x)
        first_tapped = len(encoder.down_blocks) - 2
        for level, block in enumerate(encoder.down_blocks):
            *resnets, last = block.resnets
            for resnet in resnets:
                x = residual_block(resnet, x, None)
            if level >= first_tapped:
                maps.append(x)
            x = residual_block(last, x, None)
            for downsampler in block.downsamplers or ():
                x = downsampler(x)
        x = encoder.conv_out(encoder.conv_act(encoder.conv_norm_out(encoder.mid_block(x))))
        if self.vae.quant_conv is not None:
            x = self.vae.quant_conv(x)
        mean, _ = x.chunk(2, dim=1)
        return mean, maps

    def _decode_latent(self, mean: Tensor) -> list[Tensor]:
        decoder, maps = self.vae.decoder, []
        x = mean if self.vae.post_quant_conv is None else self.vae.post_quant_conv(mean)
        x = decoder.mid_block(decoder.conv_in(x))
        per_level = self.vae.config.layers_per_block + 1
        for block in decoder.up_blocks:
            for resnet in block.resnets[: per_level - 1]:
                x = residual_block(resnet, x, None)
            maps.append(x)
            for resnet in block.resnets[per_level - 1 :]:
                x = residual_block(resnet, x, None)
            for upsampler in block.upsamplers or ():
                x = upsampler(x)
        return maps


def truncate_vae(vae: ForeignNetwork) -> None:
    """Remove, in place, all layers after the last feature map of the decoder. A truncated VAE stays as it is.

    Raises:
        UserError: if the VAE has fewer than two levels.
    """
    decoder = vae.decoder
    if len(decoder.up_blocks) < 2:
        raise UserError("the VAE has one level, but features are taken from two: use one of at least two levels")
    decoder.up_blocks = decoder.up_blocks[:2]
    last = decoder.up_blocks[1]
    last.resnets = last.resnets[: vae.config.layers_per_block]
    last.upsamplers = None
    decoder.conv_norm_out = decoder.conv_out = None


def truncate_unet(unet: ForeignNetwork) -> None:
    """Remove, in place, the last layer of the last up level and the output. A truncated UNet stays as it is.

    Raises:
        UserError: if the UNet takes other inputs than a latent, a time and a text, as Stable Diffusion XL does.
    """
    config = unet.config
    if config.addition_embed_type or config.class_embed_type or config.encoder_hid_dim_type:
        raise UserError("this UNet needs more than latent, time and text: use one of Stable Diffusion 1.x or 2.x")
    last = unet.up_blocks[-1]
    last.resnets = last.resnets[: config.layers_per_block]
    if getattr(last, "attentions", None) is not None:
        last.attentions = last.attentions[: config.layers_per_block]
    unet.conv_norm_out = unet.conv_out = None


def _layers(block: ForeignNetwork) -> Iterator[Callable[[Tensor, Tensor, Tensor], Tensor]]:
    """List the residual blocks of a level, each with its cross-attention if the level has one."""
    attentions = getattr(block, "attentions", None) or [None] * len(block.resnets)
    for resnet, attention in zip(block.resnets, attentions, strict=True):

        def layer(x: Tensor, time: Tensor, text: Tensor, resnet=resnet, attention=attention) -> Tensor:
            x = residual_block(resnet, x, time)
            return x if attention is None else attention(x, encoder_hidden_states=text, return_dict=False)[0]

        yield layer
