"""Feature pyramid from the maps of the diffusion model."""

from collections.abc import Sequence

import torch.nn.functional as F
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from xmask3d.models.blocks import NormedConv2d

FINEST_STRIDE, COARSEST_STRIDE = 4, 32


class Bottleneck(nn.Module):
    """Residual block of 1x1, 3x3 and 1x1 convolutions; a 1x1 shortcut where the channels change."""

    def __init__(self, in_channels: int, out_channels: int, mid_channels: int, groups: int = 32) -> None:
        super().__init__()
        self.shortcut = NormedConv2d(in_channels, out_channels, 1, groups) if in_channels != out_channels else None
        self.conv1 = NormedConv2d(in_channels, mid_channels, 1, groups)
        self.conv2 = NormedConv2d(mid_channels, mid_channels, 3, groups)
        self.conv3 = NormedConv2d(mid_channels, out_channels, 1, groups)
        for layer in (self.shortcut, self.conv1, self.conv2, self.conv3):
            if layer is not None:
                nn.init.kaiming_normal_(layer.weight, mode="fan_out", nonlinearity="relu")

    def forward(self, x: Tensor) -> Tensor:
        """Convolve B x in_channels x H x W to B x out_channels x H x W."""
        shortcut = x if self.shortcut is None else self.shortcut(x)
        x = F.relu(self.conv1(x))
        x = F.relu(self.conv2(x))
        return F.relu(self.conv3(x) + shortcut)


class FeaturePyramid(nn.Module):
    """Pyramid: all maps are projected to the same number of channels, and maps of equal stride are summed."""

    def __init__(
        self,
        in_channels: Sequence[int],
        strides: Sequence[int],
        *,
        channels: int = 512,
        mid_channels: int = 128,
        groups: int = 32,
        checkpointing: bool = False,
    ) -> None:
        """Build one projection per map.

        Args:
            in_channels, strides: channels and strides of the maps, in their order.
            channels: channels of every level of the pyramid.
            mid_channels: channels inside the projections.
            groups: groups of the group normalisations.
            checkpointing: recompute activations in the backward pass instead of keeping them.
        """
        super().__init__()
        self.strides = [min(max(stride, FINEST_STRIDE), COARSEST_STRIDE) for stride in strides]
        self.projections = nn.ModuleList(Bottleneck(size, channels, mid_channels, groups) for size in in_channels)
        self.checkpointing = checkpointing

    def forward(self, maps: Sequence[Tensor], image_size: tuple[int, int]) -> list[Tensor]:
        """Return the levels of the pyramid; strides beyond 4 ... 32 are clamped.

        Args:
            maps: maps in the order of the constructor's arguments, B x C_i x h_i x w_i.
            image_size: height and width of the images in pixels.

        Returns:
            One level per stride, finest first (s2 ... s5 for strides 4 ... 32), each B x channels x H/stride x
            W/stride.
        """
        levels: dict[int, Tensor] = {}
        for x, stride, projection in zip(maps, self.strides, self.projections, strict=True):
            size = (max(image_size[0] // stride, 1), max(image_size[1] // stride, 1))
            if x.shape[-2:] != size:
                x = F.interpolate(x, size, mode="nearest")
            x = checkpoint(projection, x, use_reentrant=False) if self.checkpointing else projection(x)
            levels[stride] = levels[stride] + x if stride in levels else x
        return [levels[stride] for stride in sorted(levels)]
