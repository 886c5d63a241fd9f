"""Condition of the diffusion model: the 3D global feature takes the place of a caption (arXiv 2411.13243).

The ablations of the paper use other features instead.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Literal

import torch
from torch import Tensor, nn

if TYPE_CHECKING:
    from xmask3d.models.diffusion import DiffusionFeatures, EncodedImages

Condition = Literal["point", "image", "text", "none"]
"""Source of the condition: the points' global feature, CLIP's embedding of the image or of a caption, or nothing."""


class PositionalLinear(nn.Module):
    """Linear map whose result is repeated for every token, plus a learned offset per token."""

    def __init__(self, in_features: int, out_features: int, tokens: int = 1) -> None:
        super().__init__()
        self.linear = nn.Linear(in_features, out_features)
        self.positional_embedding = nn.Parameter(torch.zeros(1, tokens, out_features))
        nn.init.trunc_normal_(self.positional_embedding, std=0.02)

    def forward(self, x: Tensor) -> Tensor:
        """Map B x in_features to B x tokens x out_features."""
        return self.linear(x).unsqueeze(1) + self.positional_embedding


class ImplicitConditioner(nn.Module):
    """Conditioner that adds the projected 3D global feature to the empty prompt and to the time embedding.

    Both additions are multiplied by tanh of a learned scalar that starts at zero, so training begins with the features
    of the unconditional diffusion model.
    """

    def __init__(self, global_dim: int, empty_prompt: Tensor, time_dim: int) -> None:
        """Build the projections.

        Args:
            global_dim: size D of the global feature.
            empty_prompt: 1 x T x context_dim, the text encoder's output for the empty prompt; kept out of checkpoints.
            time_dim: size E of the UNet's time embedding.
        """
        super().__init__()
        _, tokens, context_dim = empty_prompt.shape
        self.register_buffer("empty_prompt", empty_prompt, persistent=False)
        self.empty_prompt: Tensor
        self.clip_project = PositionalLinear(global_dim, context_dim, tokens)
        self.alpha_cond = nn.Parameter(torch.zeros(1, tokens, context_dim))
        self.time_embed_project = PositionalLinear(global_dim, time_dim)
        self.alpha_cond_time_embed = nn.Parameter(torch.zeros(time_dim))

    def forward(self, global_feature: Tensor) -> tuple[Tensor, Tensor]:
        """Map B x D to the text condition, B x T x context_dim, and the time condition, B x E."""
        text = self.empty_prompt + torch.tanh(self.alpha_cond) * self.clip_project(global_feature)
        time = torch.tanh(self.alpha_cond_time_embed) * self.time_embed_project(global_feature).squeeze(1)
        return text, time


class ImageConditioner(ImplicitConditioner):
    """Conditioner that first passes its feature, CLIP's embedding of the image, through a perceptron."""

    def __init__(self, global_dim: int, empty_prompt: Tensor, time_dim: int) -> None:
        """Accept the arguments of `ImplicitConditioner`."""
        super().__init__(global_dim, empty_prompt, time_dim)
        self.perceptron = nn.Sequential(nn.Linear(global_dim, global_dim), nn.GELU(), nn.Linear(global_dim, global_dim))

    def forward(self, global_feature: Tensor) -> tuple[Tensor, Tensor]:
        """Map B x D to the text condition and the time condition, as `ImplicitConditioner` does."""
        return super().forward(self.perceptron(global_feature))


class EmptyConditioner(nn.Module):
    """Conditioner that ignores the global feature: the empty prompt and a zero time condition."""

    def __init__(self, empty_prompt: Tensor, time_dim: int) -> None:
        """Accept the arguments of `ImplicitConditioner`."""
        super().__init__()
        self.register_buffer("empty_prompt", empty_prompt, persistent=False)
        self.empty_prompt: Tensor
        self.time_dim = time_dim

    def forward(self, global_feature: Tensor) -> tuple[Tensor, Tensor]:
        """Map B x D to the text condition, B x T x context_dim, and the time condition, B x time_dim; both constant."""
        text = self.empty_prompt.expand(len(global_feature), -1, -1)
        return text, self.empty_prompt.new_zeros(len(global_feature), self.time_dim)


class ConditionedDiffusion(nn.Module):
    """Diffusion features conditioned on the points: the built-in `ImageFeatures` (section 3.2)."""

    conditioner: ImplicitConditioner | EmptyConditioner

    def __init__(self, diffusion: DiffusionFeatures, conditioner: ImplicitConditioner | EmptyConditioner) -> None:
        """Keep the diffusion model as a submodule, but not the conditioner.

        Args:
            diffusion: frozen feature maps, conditioned by text and time.
            conditioner: makes the text and time condition from the global feature. It is left to another module to
                register it, because published checkpoints keep its tensors under a different path.
        """
        super().__init__()
        self.diffusion = diffusion
        # Bypasses nn.Module.__setattr__, which would register it here.
        self.__dict__["conditioner"] = conditioner

    @property
    def channels(self) -> list[int]:
        return self.diffusion.channels

    @property
    def strides(self) -> list[int]:
        return self.diffusion.strides

    def encode(self, images: Tensor) -> EncodedImages:
        return self.diffusion.encode(images)

    def pack(self, encoded: EncodedImages) -> list[Tensor]:
        return self.diffusion.pack(encoded)

    def unpack(self, tensors: Sequence[Tensor]) -> EncodedImages:
        return self.diffusion.unpack(tensors)

    def numbers_per_image(self, image_size: tuple[int, int]) -> int:
        return self.diffusion.numbers_per_image(image_size)

    def frozen_networks(self) -> list[nn.Module]:
        return self.diffusion.frozen_networks()

    def forward(self, encoded: EncodedImages, global_feature: Tensor) -> list[Tensor]:
        return self.diffusion(encoded, *self.conditioner(global_feature))
