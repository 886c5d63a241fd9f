"""Mask decoder: queries become masks, each with an embedding in CLIP space (Mask2Former with mask pooling)."""

import math
from collections.abc import Sequence
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from xmask3d.models.blocks import MLP, sine_position_encoding
from xmask3d.models.similarity import at_least_float32


@dataclass(frozen=True)
class MaskPrediction:
    """Masks of B images.

    Attributes:
        mask_logits: B x Q x h x w.
        embeddings: B x Q x D, in the space of the text embeddings, not normalised.
        temperature: scalar factor of cosine similarities.
        pooled: B x Q x dim, inputs of the embeddings.
    """

    mask_logits: Tensor
    embeddings: Tensor
    temperature: Tensor
    pooled: Tensor


class SelfAttentionLayer(nn.Module):
    """Self-attention of the queries; post-norm."""

    def __init__(self, dim: int, heads: int) -> None:
        super().__init__()
        self.self_attn = nn.MultiheadAttention(dim, heads, batch_first=True)
        self.norm = nn.LayerNorm(dim)

    def forward(self, queries: Tensor, query_position: Tensor) -> Tensor:
        """Update queries, B x Q x dim; the position (Q x dim) is added to queries and keys, but not to values."""
        placed = queries + query_position
        attended, _ = self.self_attn(placed, placed, queries, need_weights=False)
        return self.norm(queries + attended)


class CrossAttentionLayer(nn.Module):
    """Cross-attention of queries to the pixels of a level, where their mask allows; post-norm."""

    def __init__(self, dim: int, heads: int) -> None:
        super().__init__()
        self.heads = heads
        self.multihead_attn = nn.MultiheadAttention(dim, heads, batch_first=True)
        self.norm = nn.LayerNorm(dim)

    def forward(
        self, queries: Tensor, query_position: Tensor, memory: Tensor, memory_position: Tensor, blocked: Tensor
    ) -> Tensor:
        """Attend to the memory.

        Args:
            queries: B x Q x dim; query_position: Q x dim.
            memory: B x N x dim; memory_position: N x dim, added to keys only.
            blocked: B x Q x N, True for positions that a query must not attend to; no row may be entirely True.
        """
        attended, _ = self.multihead_attn(
            queries + query_position,
            memory + memory_position,
            memory,
            attn_mask=blocked.repeat_interleave(self.heads, dim=0),
            need_weights=False,
        )
        return self.norm(queries + attended)


class FeedForwardLayer(nn.Module):
    """Two linear layers with ReLU; post-norm."""

    def __init__(self, dim: int, ffn_dim: int) -> None:
        super().__init__()
        self.linear1 = nn.Linear(dim, ffn_dim)
        self.linear2 = nn.Linear(ffn_dim, dim)
        self.norm = nn.LayerNorm(dim)

    def forward(self, queries: Tensor) -> Tensor:
        """Update queries, B x Q x dim."""
        return self.norm(queries + self.linear2(F.relu(self.linear1(queries))))


class MaskEmbedding(nn.Module):
    """Embedding of masks: pools the mask features under every mask and maps them into CLIP space."""

    def __init__(self, dim: int, mask_dim: int, projection_dim: int) -> None:
        super().__init__()
        self.pool_proj = nn.Sequential(nn.LayerNorm(mask_dim), nn.Linear(mask_dim, dim))
        self.mask_embed = nn.Sequential(nn.LayerNorm(dim), MLP(dim, dim, dim, projection_dim))
        self.logit_scale = nn.Parameter(torch.tensor(math.log(1 / 0.07)))

    def forward(self, queries: Tensor, mask_features: Tensor, mask_logits: Tensor) -> tuple[Tensor, Tensor]:
        """Pool the mask features and embed the masks.

        Args:
            queries: B x Q x dim, normalised.
            mask_features: B x mask_dim x H x W.
            mask_logits: B x Q x H x W; they select pixels and take no gradient.

        Returns:
            Embeddings, B x Q x projection_dim, and the pooled features behind them, B x Q x dim.
        """
        pooled = self.pool_proj(pool_under_masks(mask_features, mask_logits)) + queries
        return self.mask_embed(pooled), pooled

    def temperature(self) -> Tensor:
        """Return the scalar factor of all cosine classifiers, at most 100."""
        return self.logit_scale.exp().clamp(max=100)


class MaskDecoder(nn.Module):
    """Layers of masked cross-attention, self-attention and feed-forward, with predictions before and after each."""

    def __init__(
        self,
        *,
        dim: int = 256,
        mask_dim: int = 256,
        queries: int = 50,
        heads: int = 8,
        ffn_dim: int = 2048,
        layers: int = 9,
        levels: int = 3,
        projection_dim: int = 768,
    ) -> None:
        """Build the layers.

        Args:
            dim: channels of queries and memories.
            mask_dim: channels of the mask features.
            queries: number Q of masks.
            heads, ffn_dim, layers: attention heads, inner channels of the feed-forward, and number of layers.
            levels: number of memories; layer i attends to level i mod levels.
            projection_dim: size of the mask embeddings, which is that of text embeddings.
        """
        super().__init__()
        self.transformer_self_attention_layers = nn.ModuleList(SelfAttentionLayer(dim, heads) for _ in range(layers))
        self.transformer_cross_attention_layers = nn.ModuleList(CrossAttentionLayer(dim, heads) for _ in range(layers))
        self.transformer_ffn_layers = nn.ModuleList(FeedForwardLayer(dim, ffn_dim) for _ in range(layers))
        self.decoder_norm = nn.LayerNorm(dim)
        self.query_feat = nn.Embedding(queries, dim)
        self.query_embed = nn.Embedding(queries, dim)
        self.level_embed = nn.Embedding(levels, dim)
        self.mask_embed = MLP(dim, dim, dim, mask_dim)
        self.post_mask_embed = MaskEmbedding(dim, mask_dim, projection_dim)
        for parameter in self.parameters():
            if parameter.dim() > 1:
                nn.init.xavier_uniform_(parameter)
        for embedding in (self.query_feat, self.query_embed, self.level_embed):
            nn.init.normal_(embedding.weight)

    def forward(self, mask_features: Tensor, memories: Sequence[Tensor], *, auxiliary: bool) -> list[MaskPrediction]:
        """Predict masks after the last layer, or before and after every layer.

        Args:
            mask_features: B x mask_dim x H x W.
            memories: B x dim x h x w each, coarsest first.
            auxiliary: also predict from the queries before each layer, for losses.

        Returns:
            The final prediction first; then, if requested, those before layer 0, before layer 1, ...
        """
        values, positions = self._flatten(memories)
        sizes = [(memory.shape[-2], memory.shape[-1]) for memory in memories]
        queries = self.query_feat.weight.expand(len(mask_features), -1, -1)
        earlier = []
        layers = zip(
            self.transformer_cross_attention_layers,
            self.transformer_self_attention_layers,
            self.transformer_ffn_layers,
            strict=True,
        )
        for index, (cross_attention, self_attention, feed_forward) in enumerate(layers):
            level = index % len(sizes)
            # Attention masks take no gradient; without auxiliary predictions nothing else needs the graph of these
            # logits.
            with torch.set_grad_enabled(torch.is_grad_enabled() and auxiliary):
                normed = self.decoder_norm(queries)
                mask_logits = self._mask_logits(normed, mask_features)
            if auxiliary:
                earlier.append(self._prediction(normed, mask_features, mask_logits))
            blocked = attention_mask(mask_logits, sizes[level])
            position = self.query_embed.weight
            queries = cross_attention(queries, position, values[level], positions[level], blocked)
            queries = feed_forward(self_attention(queries, position))
        normed = self.decoder_norm(queries)
        return [self._prediction(normed, mask_features, self._mask_logits(normed, mask_features)), *earlier]

    def _flatten(self, memories: Sequence[Tensor]) -> tuple[list[Tensor], list[Tensor]]:
        """Flatten memories plus their level's embedding to B x N x dim, and position encodings to N x dim."""
        values, positions = [], []
        for memory, embedding in zip(memories, self.level_embed.weight, strict=True):
            values.append(memory.flatten(2).transpose(1, 2) + embedding)
            height, width = memory.shape[-2:]
            encoding = sine_position_encoding(height, width, memory.shape[1], device=memory.device, dtype=memory.dtype)
            positions.append(encoding.flatten(1).T)
        return values, positions

    def _mask_logits(self, normed: Tensor, mask_features: Tensor) -> Tensor:
        return torch.einsum("bqc,bchw->bqhw", self.mask_embed(normed), mask_features)

    def _prediction(self, normed: Tensor, mask_features: Tensor, mask_logits: Tensor) -> MaskPrediction:
        embeddings, pooled = self.post_mask_embed(normed, mask_features, mask_logits)
        return MaskPrediction(mask_logits, embeddings, self.post_mask_embed.temperature(), pooled)


def pool_under_masks(features: Tensor, mask_logits: Tensor) -> Tensor:
    """Average the features under each mask.

    Args:
        features: B x C x H x W.
        mask_logits: B x Q x H x W; a pixel counts where its probability exceeds 0.5. No gradient.

    Returns:
        B x Q x C, zero for a mask without pixels.
    """
    inside = mask_logits.detach() > 0
    with torch.autocast(features.device.type, enabled=False):
        wide = at_least_float32(features)  # sums over a map can exceed the range of float16
        total = torch.einsum("bchw,bqhw->bqc", wide, inside.to(wide.dtype))
        return (total / inside.sum((-2, -1)).clamp(min=1)[..., None]).to(features.dtype)


def attention_mask(mask_logits: Tensor, size: tuple[int, int]) -> Tensor:
    """Return the positions that queries must not attend to: those outside their mask, if they have one.

    Args:
        mask_logits: B x Q x H x W.
        size: height and width of the level attended to.

    Returns:
        Boolean, B x Q x (height * width), True where blocked.
    """
    resized = F.interpolate(mask_logits.detach(), size, mode="bilinear", align_corners=False)
    blocked = resized.flatten(2) < 0
    return blocked & ~blocked.all(-1, keepdim=True)
