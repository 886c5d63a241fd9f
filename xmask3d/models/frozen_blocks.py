"""Blocks of frozen diffusers networks, computed without keeping what is cheap to compute again.

The weights take no gradient, so a convolution needs nothing of its input for the backward pass; autograd keeps it all
the same, and the norm's and the activation's results with it. A block that recomputes those keeps a third.
"""

from collections.abc import Callable
from typing import Any

import torch
import torch.nn.functional as F
from diffusers.models.activations import GEGLU
from diffusers.models.attention import BasicTransformerBlock
from diffusers.models.resnet import ResnetBlock2D
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

# Numbers of a tensor from which on the memory is worth the calls; those of small networks stay below.
_WORTH = 1 << 17


def residual_block(block: nn.Module, x: Tensor, time: Tensor | None) -> Tensor:
    """`block(x, time)` of a `ResnetBlock2D`, B x C x H x W to B x C' x H x W."""
    if not _is_plain(block):
        return block(x, time)
    hidden = _recompute(lambda x: block.conv1(_activated(block.norm1, x)), x)
    if block.time_emb_proj is not None:
        hidden = hidden + block.time_emb_proj(F.silu(time))[:, :, None, None]
    hidden = _recompute(lambda x: block.conv2(_activated(block.norm2, x)), hidden)
    shortcut = x if block.conv_shortcut is None else block.conv_shortcut(x)
    return hidden.add_(shortcut)  # a convolution's result, which nothing else reads


def keep_little(network: nn.Module) -> None:
    """Let the transformer blocks of a network recompute their widest tensors; changes the network in place."""
    for module in network.modules():
        if isinstance(module, BasicTransformerBlock) and _is_plain_transformer(module):
            module.__class__ = _TransformerBlock  # parameters keep their names


class _TransformerBlock(BasicTransformerBlock):
    """Self-attention, cross-attention and feed-forward, each after a norm.

    Self-attention keeps what it needs, being dear; the cross-attention to a few words, and the feed-forward up to its
    last product, are recomputed.
    """

    def forward(self, hidden_states: Tensor, *_: Any, encoder_hidden_states: Tensor, **__: Any) -> Tensor:  # type: ignore[override]
        x = self.attn1(self.norm1(hidden_states)) + hidden_states
        x = _recompute(lambda x, text: self.attn2(self.norm2(x), text), x, encoder_hidden_states) + x
        gate, _dropout, out = self.ff.net
        return out(_recompute(lambda x: gate(self.norm3(x)), x)) + x


def _activated(norm: nn.Module, x: Tensor) -> Tensor:
    return F.silu(norm(x), inplace=not (torch.is_grad_enabled() and x.requires_grad))


def _recompute(function: Callable[..., Tensor], x: Tensor, *others: Tensor) -> Tensor:
    """`function(x, *others)`, recomputed in the backward pass as far as the last tensor that is kept: a product that
    ends the function is not computed again."""
    if torch.is_grad_enabled() and x.requires_grad and x.numel() >= _WORTH:
        return checkpoint(function, x, *others, use_reentrant=False, preserve_rng_state=False)
    return function(x, *others)


def _is_plain(block: nn.Module) -> bool:
    return (
        isinstance(block, ResnetBlock2D)
        and block.time_embedding_norm == "default"
        and isinstance(block.nonlinearity, nn.SiLU)
        and block.upsample is None
        and block.downsample is None
        and block.output_scale_factor == 1
        and (block.time_emb_proj is None or not block.skip_time_act)
        and (not block.dropout.p or not block.training)
    )


def _is_plain_transformer(block: BasicTransformerBlock) -> bool:
    kinds = [type(layer) for layer in block.ff.net]
    return (
        block.norm_type == "layer_norm"
        and block.pos_embed is None
        and block.attn2 is not None
        and block._chunk_size is None
        and not (block.only_cross_attention or block.double_self_attention)
        and not hasattr(block, "fuser")
        and kinds == [GEGLU, nn.Dropout, nn.Linear]
        and not block.ff.net[1].p
    )
