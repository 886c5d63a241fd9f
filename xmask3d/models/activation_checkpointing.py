"""Activation checkpointing of frozen diffusers networks: activations that are cheap to recompute are not kept.

The weights take no gradient, so a convolution does not need its input for the backward pass; autograd keeps the input
all the same, and the results of the norm and the activation with it. A residual block that recomputes these keeps two
maps out of about ten. A transformer keeps three out of about twelve: its input, the output of self-attention, which is
expensive to recompute, and the input of the feed-forward.
"""

from collections.abc import Callable
from functools import partial
from typing import Any

import torch
import torch.nn.functional as F
from diffusers import Transformer2DModel
from diffusers.models.activations import GEGLU
from diffusers.models.attention import BasicTransformerBlock
from diffusers.models.resnet import ResnetBlock2D
from torch import Tensor, nn
from torch.utils.checkpoint import CheckpointPolicy, checkpoint, create_selective_checkpoint_contexts

from xmask3d.models.frozen import ForeignNetwork
from xmask3d.native import winograd

# Tensors with at least this many numbers are worth the extra calls; those of small networks are below it.
_WORTH = 1 << 17
# Tokens that a feed-forward takes at a time.
_TOKENS = 1024


def residual_block(block: ForeignNetwork, x: Tensor, time: Tensor | None) -> Tensor:
    """Compute `block(x, time)` of a `ResnetBlock2D`, B x C x H x W to B x C' x H x W."""
    if not _is_plain(block):
        return block(x, time)
    hidden = _recompute(lambda x: block.conv1(_activated(block.norm1, x)), x)
    if block.time_emb_proj is not None:
        assert time is not None, "this block adds a time embedding"
        hidden = hidden + block.time_emb_proj(F.silu(time))[:, :, None, None]
    hidden = _recompute(lambda x: block.conv2(_activated(block.norm2, x)), hidden)
    shortcut = x if block.conv_shortcut is None else block.conv_shortcut(x)
    return hidden.add_(shortcut)  # the result of a convolution, so nothing else reads it


def multiply_less(network: nn.Module) -> None:
    """Switch a network's 3 x 3 convolutions, in place, to Winograd's algorithm where that is faster."""
    for module in network.modules():
        if type(module) is nn.Conv2d and _is_same_size(module):
            module.__class__ = _Convolution  # parameters keep their names


class _Convolution(nn.Conv2d):
    """Convolution with 3 x 3 weights, stride 1, padding 1."""

    def forward(self, input: Tensor) -> Tensor:
        return winograd.conv2d(input, self.weight, self.bias)


def use_checkpointing(network: nn.Module) -> None:
    """Make a network's transformers, in place, recompute everything but self-attention."""
    for module in network.modules():
        if isinstance(module, Transformer2DModel) and _is_plain_transformer(module):
            module.__class__ = _Transformer  # type: ignore[assignment]  # parameters keep their names


class _Transformer(Transformer2DModel):
    """Transformer: norm, projection, blocks and projection back, added to the input."""

    norm: ForeignNetwork
    proj_in: ForeignNetwork
    proj_out: ForeignNetwork
    transformer_blocks: ForeignNetwork

    def forward(  # type: ignore[override]
        self, hidden_states: Tensor, encoder_hidden_states: Tensor, *_: Any, return_dict: bool = False, **__: Any
    ) -> tuple[Tensor]:
        x, text = hidden_states, encoder_hidden_states
        tokens = x
        for block in self.transformer_blocks:
            attend = self._enter_and_attend if tokens is x else _attend
            tokens = _recompute(partial(attend, block), tokens, text, context_fn=_keeping_attention)
            tokens = tokens + _feed_forward(block, tokens)
        return (x + _product(self.proj_out, tokens).transpose(1, 2).reshape(x.shape),)

    def _enter_and_attend(self, block: ForeignNetwork, x: Tensor, text: Tensor) -> Tensor:
        tokens = self.norm(x).flatten(2).transpose(1, 2)
        return _attend(block, _product(self.proj_in, tokens), text)


def _attend(block: ForeignNetwork, x: Tensor, text: Tensor) -> Tensor:
    """Apply self-attention and cross-attention, each after a norm; B x N x C."""
    x = block.attn1(block.norm1(x)) + x
    return block.attn2(block.norm2(x), text) + x


def _feed_forward(block: ForeignNetwork, x: Tensor) -> Tensor:
    """Apply norm and feed-forward, B x N x C; in parts if it is long, since inner maps are eight times as wide."""
    parts = [_recompute(lambda x: block.ff(block.norm3(x)), part) for part in x.split(_TOKENS, 1)]
    return parts[0] if len(parts) == 1 else torch.cat(parts, 1)


def _product(layer: ForeignNetwork, tokens: Tensor) -> Tensor:
    """Apply a linear layer or 1 x 1 convolution as a product, which does not keep its input for frozen weights."""
    return F.linear(tokens, layer.weight.flatten(1), layer.bias)


def _activated(norm: ForeignNetwork, x: Tensor) -> Tensor:
    return F.silu(norm(x), inplace=not (torch.is_grad_enabled() and x.requires_grad))


def _recompute(function: Callable[..., Tensor], x: Tensor, *others: Tensor, **options: Any) -> Tensor:
    """Compute `function(x, *others)`, and recompute it in the backward pass up to the last tensor that is kept."""
    if torch.is_grad_enabled() and x.requires_grad and x.numel() >= _WORTH:
        return checkpoint(function, x, *others, use_reentrant=False, preserve_rng_state=False, **options)
    return function(x, *others)


def _policy(_context: object, operator: object, *arguments: Any, **_options: Any) -> CheckpointPolicy:
    """Keep the output of attention with at least as many keys as queries; attention to few tokens is cheap."""
    if operator in _ATTENTION and arguments[1].shape[-2] >= arguments[0].shape[-2]:
        return CheckpointPolicy.MUST_SAVE
    return CheckpointPolicy.PREFER_RECOMPUTE


_keeping_attention = partial(create_selective_checkpoint_contexts, _policy)
_ATTENTION = {
    getattr(torch.ops.aten, name).default
    for name in (
        "_scaled_dot_product_flash_attention_for_cpu",
        "_scaled_dot_product_flash_attention",
        "_scaled_dot_product_efficient_attention",
        "_scaled_dot_product_cudnn_attention",
    )
    if hasattr(torch.ops.aten, name)
}


def _is_same_size(conv: nn.Conv2d) -> bool:
    sizes = conv.kernel_size, conv.stride, conv.padding, conv.dilation
    return sizes == ((3, 3), (1, 1), (1, 1), (1, 1)) and conv.groups == 1 and conv.padding_mode == "zeros"


def _is_plain(block: ForeignNetwork) -> bool:
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


def _is_plain_transformer(model: ForeignNetwork) -> bool:
    return model.is_input_continuous and all(_is_plain_block(block) for block in model.transformer_blocks)


def _is_plain_block(block: ForeignNetwork) -> bool:
    return (
        isinstance(block, BasicTransformerBlock)
        and block.norm_type == "layer_norm"
        and block.pos_embed is None
        and block.attn2 is not None
        and block._chunk_size is None
        and not (block.only_cross_attention or block.double_self_attention)
        and not hasattr(block, "fuser")
        and [type(layer) for layer in block.ff.net] == [GEGLU, nn.Dropout, nn.Linear]
        and not block.ff.net[1].p
    )
