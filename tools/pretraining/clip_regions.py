"""Regions of pictures through CLIP's image tower: one token per region that sees its own patches only."""

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from timm.data import IMAGENET_DEFAULT_MEAN, IMAGENET_DEFAULT_STD
from torch import Tensor, nn


@dataclass
class Encoded:
    """Outputs of the image tower: class tokens B x D, region tokens B x R x D, kept patch tokens B x K x width."""

    views: Tensor
    regions: Tensor
    patches: Tensor


def image_patches(visual: nn.Module, images: Tensor) -> Tensor:
    """Convert images B x 3 x H x W in [0, 1] to patch embeddings B x width x H/16 x W/16."""
    mean = images.new_tensor(IMAGENET_DEFAULT_MEAN).view(3, 1, 1)
    std = images.new_tensor(IMAGENET_DEFAULT_STD).view(3, 1, 1)
    return visual.conv1((images - mean) / std)


def encode_regions(visual: nn.Module, patches: Tensor, visible: Tensor, kept: Tensor | None = None) -> Encoded:
    """Run views and regions through the transformer: region tokens start as class tokens, see only their patches.

    Args:
        patches: B x width x h x w, from `image_patches`.
        visible: B x R x P, patches of each region.
        kept: B x K, patches to compute at all; others are dropped, which saves time and keeps the tower from relying on
            any single patch. All if None.
    """
    x = patches.flatten(2).transpose(1, 2)
    positions = visual.positional_embedding
    x = x + positions[1:]
    if kept is not None:
        x = x.gather(1, kept[..., None].expand(-1, -1, x.shape[-1]))
        visible = visible.gather(2, kept[:, None].expand(-1, visible.shape[1], -1))
    first = (visual.class_embedding + positions[0]).expand(len(x), 1, -1).to(x.dtype)
    x = visual.ln_pre(torch.cat([first, x], 1))
    region = x[:, :1].expand(-1, visible.shape[1], -1)
    # A bias of the attention: the image's own tokens see each other, region tokens the class token and their patches.
    hidden = torch.zeros(len(x), 1, x.shape[1] + region.shape[1], x.shape[1], dtype=x.dtype)
    hidden[:, 0, x.shape[1] :, 1:].masked_fill_(~visible, -1e4)
    for block in visual.transformer.resblocks:
        both = torch.cat([x, region], 1)
        count = x.shape[1]
        attention = block.attn
        projected = F.linear(block.ln_1(both), attention.in_proj_weight, attention.in_proj_bias)
        query, key, value = projected.unflatten(-1, (3, attention.num_heads, -1)).permute(2, 0, 3, 1, 4)
        key, value = key[:, :, :count], value[:, :, :count]
        attended = _attend(query, key, value, hidden)
        both = both + attention.out_proj(attended.transpose(1, 2).flatten(2))
        both = both + block.mlp(block.ln_2(both))
        x, region = both[:, :count], both[:, count:]
    out = visual.ln_post(torch.cat([x[:, :1], region], 1)) @ visual.proj
    return Encoded(out[:, 0], out[:, 1:], x[:, 1:])


def _attend(query: Tensor, key: Tensor, value: Tensor, bias: Tensor) -> Tensor:
    """Compute plain attention, which trains faster on CPUs than the fused one, see `clip_training.encode_tokens`."""
    scores = query @ key.transpose(-2, -1) * query.shape[-1] ** -0.5 + bias.to(query.dtype)
    return scores.softmax(-1).to(value.dtype) @ value
