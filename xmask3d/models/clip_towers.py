"""Image towers of CLIP, taken apart so that a mask may choose the patches that its embedding sees (MaskCLIP)."""

from abc import ABC, abstractmethod
from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F
from timm.layers import AttentionPoolLatent, apply_rot_embed_cat
from timm.models.eva import EvaAttention, EvaBlockPostNorm
from torch import Tensor, nn

from xmask3d.errors import UserError
from xmask3d.models.frozen import ForeignNetwork


@dataclass(frozen=True)
class EncodedTokens:
    """Encoded tokens of B images for the mask tokens: T tokens, L layers.

    Attributes:
        class_token: B x C, the token that becomes a mask's embedding, before the first layer.
        keys, values: keys and values of each layer, B x heads x T x C/heads.
    """

    class_token: Tensor
    keys: tuple[Tensor, ...]
    values: tuple[Tensor, ...]


class ImageTower(ABC):
    """Image tower in two parts: one for the image, one for each mask. Without gradient.

    Args:
        visual: `visual` of an open_clip model.
    """

    def __init__(self, visual: ForeignNetwork) -> None:
        self.visual = visual

    @property
    def image_size(self) -> tuple[int, int]:
        """Height and width of the images that the tower takes."""
        return self.visual.image_size

    @property
    @abstractmethod
    def patch_size(self) -> tuple[int, int]:
        """Height and width of a patch."""

    @property
    @abstractmethod
    def dim(self) -> int:
        """Size D of the embeddings."""

    @property
    @abstractmethod
    def numbers(self) -> int:
        """Count of the numbers of `EncodedTokens` for one image."""

    @abstractmethod
    def encode(self, images: Tensor) -> EncodedTokens:
        """Encode B x 3 x H x W images of the tower's size, normalised."""

    @abstractmethod
    def embed(self, encoded: EncodedTokens, visible: Tensor) -> Tensor:
        """Embed sets of patches, B x Q x D; `visible`: B x Q x patches bool."""


class ClassTokenTower(ImageTower):
    """Transformer whose class token is the embedding.

    Every mask gets a copy of the class token, which attends to the class token and to the patches that the mask
    touches. No other token attends to mask tokens, so the image's tokens are those of plain CLIP and are computed once
    for all masks.
    """

    def encode(self, images: Tensor) -> EncodedTokens:
        x = self._enter(images)
        first, keys, values = x[:, 0], [], []
        *blocks, last = self._blocks()
        for block in blocks:
            query, key, value = self._project(block, x)
            keys.append(key)
            values.append(value)
            x = self._finish(block, x, F.scaled_dot_product_attention(query, key, value))
        # Mask tokens need only keys and values of the last layer.
        _, key, value = self._project(last, x)
        return EncodedTokens(first, (*keys, key), (*values, value))

    def embed(self, encoded: EncodedTokens, visible: Tensor) -> Tensor:
        # The class token comes first and is part of every set.
        seen = F.pad(visible, (1, 0), value=True).unsqueeze(1).to(encoded.class_token.device)
        x = encoded.class_token.unsqueeze(1).expand(-1, visible.shape[1], -1)
        for block, key, value in zip(self._blocks(), encoded.keys, encoded.values, strict=True):
            query, _, _ = self._project(block, x, of_masks=True)
            key, value = key.to(query), value.to(query)  # stored keys and values do not follow autocast
            x = self._finish(block, x, F.scaled_dot_product_attention(query, key, value, attn_mask=seen))
        return self._leave(x)

    @abstractmethod
    def _blocks(self) -> Any:
        """Return the layers in order."""

    @abstractmethod
    def _enter(self, images: Tensor) -> Tensor:
        """Return the tokens before the first layer, B x T x C, the class token first."""

    @abstractmethod
    def _project(self, block: ForeignNetwork, x: Tensor, of_masks: bool = False) -> tuple[Tensor, Tensor, Tensor]:
        """Return queries, keys and values of B x N x C tokens, each B x heads x N x C/heads.

        Args:
            block: layer.
            x: tokens of images in their order, or copies of the class token.
            of_masks: true for such copies, which have no place in the image.
        """

    @abstractmethod
    def _finish(self, block: ForeignNetwork, x: Tensor, attended: Tensor) -> Tensor:
        """Return a layer's output, given its input, B x N x C, and its attention's, B x heads x N x C/heads."""

    @abstractmethod
    def _leave(self, x: Tensor) -> Tensor:
        """Map B x Q x C copies of the class token after the last layer to B x Q x D."""


class PlainTower(ClassTokenTower):
    """Vision transformer of open_clip, OpenAI's among them."""

    @property
    def patch_size(self) -> tuple[int, int]:
        return self.visual.patch_size

    @property
    def dim(self) -> int:
        return self.visual.output_dim

    @property
    def numbers(self) -> int:
        tokens, width = self.visual.positional_embedding.shape
        return width * (1 + 2 * tokens * len(self._blocks()))

    def _blocks(self) -> Any:
        return self.visual.transformer.resblocks

    def _enter(self, images: Tensor) -> Tensor:
        visual = self.visual
        x = visual.conv1(images.to(visual.class_embedding.dtype)).flatten(2).transpose(1, 2)
        class_token = visual.class_embedding.to(x.dtype).expand(len(x), 1, -1)
        x = torch.cat([class_token, x], dim=1) + visual.positional_embedding.to(x.dtype)
        return visual.ln_pre(x)

    def _project(self, block: ForeignNetwork, x: Tensor, of_masks: bool = False) -> tuple[Tensor, Tensor, Tensor]:
        attention = block.attn
        projected = F.linear(block.ln_1(x), attention.in_proj_weight, attention.in_proj_bias)
        query, key, value = projected.unflatten(-1, (3, attention.num_heads, -1)).permute(2, 0, 3, 1, 4)
        return query, key, value

    def _finish(self, block: ForeignNetwork, x: Tensor, attended: Tensor) -> Tensor:
        x = x + block.ls_1(block.attn.out_proj(attended.transpose(1, 2).flatten(2)))
        return x + block.ls_2(block.mlp(block.ln_2(x)))

    def _leave(self, x: Tensor) -> Tensor:
        x = self.visual.ln_post(x)
        return x if self.visual.proj is None else x @ self.visual.proj


class TimmTower(ImageTower):
    """Properties that towers of timm's networks share."""

    @property
    def patch_size(self) -> tuple[int, int]:
        return self.visual.trunk.patch_embed.patch_size

    @property
    def dim(self) -> int:
        trunk = self.visual.trunk
        linear = [part for head in (trunk.head, self.visual.head) for part in head.modules()]
        widths = [part.out_features for part in linear if isinstance(part, nn.Linear)]
        return widths[-1] if widths else trunk.num_features

    @property
    def _patches(self) -> int:
        return self.visual.trunk.patch_embed.num_patches

    def _head(self, x: Tensor) -> Tensor:
        trunk = self.visual.trunk
        return self.visual.head(trunk.head(trunk.fc_norm(x)))


class EvaTower(TimmTower, ClassTokenTower):
    """EVA of timm: patches have rotary embeddings of their place, and every network its own order of norms."""

    @property
    def numbers(self) -> int:
        trunk = self.visual.trunk
        return trunk.embed_dim * (1 + 2 * (1 + self._patches) * len(trunk.blocks))

    def _blocks(self) -> Any:
        return self.visual.trunk.blocks

    def _enter(self, images: Tensor) -> Tensor:
        trunk = self.visual.trunk
        x, _ = trunk._pos_embed(trunk.patch_embed(images.to(trunk.cls_token.dtype)))
        return trunk.norm_pre(x)

    def _project(self, block: ForeignNetwork, x: Tensor, of_masks: bool = False) -> tuple[Tensor, Tensor, Tensor]:
        attention = block.attn
        x = x if isinstance(block, EvaBlockPostNorm) else block.norm1(x)
        if attention.qkv is None:
            query, key, value = (layer(x) for layer in (attention.q_proj, attention.k_proj, attention.v_proj))
        else:
            biases = (attention.q_bias, attention.k_bias, attention.v_bias)
            bias = None if biases[0] is None else torch.cat(biases)
            query, key, value = F.linear(x, attention.qkv.weight, bias).chunk(3, -1)
        query, key, value = (
            part.unflatten(-1, (attention.num_heads, -1)).transpose(1, 2) for part in (query, key, value)
        )
        query, key = attention.q_norm(query), attention.k_norm(key)
        if self.visual.trunk.rope is None or of_masks:
            return query, key, value
        return self._turn(attention, query).to(value), self._turn(attention, key).to(value), value

    def _turn(self, attention: EvaAttention, x: Tensor) -> Tensor:
        """Turn queries or keys of patches by their place; the class token, which comes first, has none."""
        trunk = self.visual.trunk
        place = trunk.rope.get_embed(shape=trunk.patch_embed.grid_size)
        turned = apply_rot_embed_cat(x[:, :, 1:], place, half=attention.rotate_half)
        return torch.cat([x[:, :, :1], turned], 2)

    def _finish(self, block: ForeignNetwork, x: Tensor, attended: Tensor) -> Tensor:
        attention = block.attn
        added = attention.proj(attention.norm(attended.transpose(1, 2).flatten(2)))
        if isinstance(block, EvaBlockPostNorm):
            x = x + block.norm1(added)
            return x + block.norm2(block.mlp(x))
        x = x + (added if block.gamma_1 is None else block.gamma_1 * added)
        added = block.mlp(block.norm2(x))
        return x + (added if block.gamma_2 is None else block.gamma_2 * added)

    def _leave(self, x: Tensor) -> Tensor:
        return self._head(self.visual.trunk.norm(x))


class PooledTower(TimmTower):
    """Transformer of timm without a class token, whose patches a learned query pools by attention, as in SigLIP.

    A mask says which patches its query attends to. The patches themselves have seen the complete image, as they do
    in `ClassTokenTower`. A mask without patches has nothing else to see, and attends to all of them.
    """

    @property
    def numbers(self) -> int:
        width = self.visual.trunk.embed_dim
        return width * (1 + 2 * self._patches)

    def encode(self, images: Tensor) -> EncodedTokens:
        trunk = self.visual.trunk
        pool = trunk.attn_pool
        x = trunk.forward_features(images.to(pool.latent.dtype))
        if pool.pos_embed is not None:
            x = x + pool.pos_embed.to(x)
        key, value = pool.kv(x).unflatten(-1, (2, pool.num_heads, -1)).permute(2, 0, 3, 1, 4)
        return EncodedTokens(pool.latent[0].to(x).expand(len(x), -1), (pool.k_norm(key),), (value,))

    def embed(self, encoded: EncodedTokens, visible: Tensor) -> Tensor:
        pool = self.visual.trunk.attn_pool
        seen = (visible | ~visible.any(-1, keepdim=True)).unsqueeze(1).to(encoded.class_token.device)
        query = pool.q(encoded.class_token).unflatten(-1, (pool.num_heads, 1, -1))
        query = pool.q_norm(query).expand(-1, -1, visible.shape[1], -1)
        key, value = encoded.keys[0].to(query), encoded.values[0].to(query)
        attended = F.scaled_dot_product_attention(query, key, value, attn_mask=seen)
        x = pool.proj(attended.transpose(1, 2).flatten(2))
        if pool.mlp is not None:
            x = x + pool.mlp(pool.norm(x))
        return self._head(x)


def tower_kind(visual: ForeignNetwork) -> type[ImageTower]:
    """Choose the class that takes an image tower apart.

    Raises:
        UserError: its layers are not those of a known kind.
    """
    blocks = getattr(getattr(visual, "transformer", None), "resblocks", [])
    plain = len(blocks) > 0 and all(
        isinstance(getattr(block, "attn", None), nn.MultiheadAttention) and block.attn.in_proj_weight is not None
        for block in blocks
    )
    if plain and getattr(visual, "attn_pool", None) is None and hasattr(visual, "class_embedding"):
        return PlainTower
    trunk: ForeignNetwork = getattr(visual, "trunk", None)
    pool = getattr(trunk, "attn_pool", None)
    if isinstance(pool, AttentionPoolLatent) and pool.latent_len == 1 and trunk.num_prefix_tokens == 0:
        return PooledTower
    if pool is None and getattr(trunk, "global_pool", "") == "token" and trunk.num_prefix_tokens == 1:
        attentions = [getattr(block, "attn", None) for block in trunk.blocks]
        if all(isinstance(attention, EvaAttention) and attention.gate is None for attention in attentions):
            return EvaTower
    raise UserError(
        "this CLIP's image tower is no vision transformer with a class token or attention pooling: use one such as "
        "ViT-L-14, EVA02-L-14 or ViT-L-16-SigLIP2-256"
    )
