"""3D networks: MinkUNet, the point encoder with its global feature, and the base-or-novel head.

The U-Net is that of 4D Spatio-Temporal ConvNets (Choy et al., CVPR 2019); XMask3D (arXiv 2411.13243, section 3.2) uses
its 34C form to encode points and the 18A form to separate base from novel. Parameter names are those of published
checkpoints.
"""

from collections.abc import Sequence
from typing import cast

from torch import Tensor, nn
from torch.nn import functional

from xmask3d.sparse import (
    BatchNorm,
    Convolution,
    SparseTensor,
    TransposedConvolution,
    Voxels,
    concatenate,
    max_pool_samples,
    normed_convolution,
)

LAYERS_18 = (2, 2, 2, 2, 2, 2, 2, 2)
LAYERS_34 = (2, 3, 4, 6, 2, 2, 2, 2)
PLANES_A = (32, 64, 128, 256, 128, 128, 96, 96)
PLANES_C = (32, 64, 128, 256, 256, 128, 96, 96)


class BasicBlock(nn.Module):
    """Two 3x3x3 convolutions with batch norm, and a shortcut (projected where the channels change)."""

    def __init__(self, in_channels: int, channels: int) -> None:
        super().__init__()
        self.conv1 = Convolution(in_channels, channels)
        self.norm1 = BatchNorm(channels)
        self.conv2 = Convolution(channels, channels)
        self.norm2 = BatchNorm(channels)
        self.downsample: nn.Sequential | None = None
        if in_channels != channels:
            self.downsample = nn.Sequential(Convolution(in_channels, channels, kernel_size=1), BatchNorm(channels))

    def forward(self, x: SparseTensor) -> SparseTensor:
        out = normed_convolution(self.conv1, self.norm1, x)
        shortcut = x
        if self.downsample is not None:
            projection, norm = self.downsample
            shortcut = normed_convolution(cast(Convolution, projection), cast(BatchNorm, norm), x, relu=False)
        return normed_convolution(self.conv2, self.norm2, out, shortcut=shortcut)


class MinkUNet(nn.Module):
    """Sparse U-Net of five levels (tensor strides 1 to 16).

    Args:
        in_channels: channels of the input features.
        out_channels: channels of the output features.
        planes: channels of the eight stages, four down and four up.
        layers: residual blocks of the eight stages.
        stem: channels of the first convolution.
    """

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        planes: Sequence[int] = PLANES_C,
        layers: Sequence[int] = LAYERS_34,
        stem: int = 32,
    ) -> None:
        super().__init__()
        if len(planes) != 8 or len(layers) != 8:
            raise ValueError(f"a MinkUNet has 8 stages; got {len(planes)} planes and {len(layers)} layers")
        self.bottleneck_channels = planes[3]
        self.conv0p1s1 = Convolution(in_channels, stem, kernel_size=5)
        self.bn0 = BatchNorm(stem)
        width = stem
        for level, name in enumerate(("conv1p1s2", "conv2p2s2", "conv3p4s2", "conv4p8s2")):
            self.add_module(name, Convolution(width, width, kernel_size=2, stride=2))
            self.add_module(f"bn{level + 1}", BatchNorm(width))
            self.add_module(f"block{level + 1}", _stage(width, planes[level], layers[level]))
            width = planes[level]
        skips = (planes[2], planes[1], planes[0], stem)
        for level, name in enumerate(("convtr4p16s2", "convtr5p8s2", "convtr6p4s2", "convtr7p2s2")):
            channels = planes[4 + level]
            self.add_module(name, TransposedConvolution(width, channels))
            self.add_module(f"bntr{level + 4}", BatchNorm(channels))
            self.add_module(f"block{level + 5}", _stage(channels + skips[level], channels, layers[4 + level]))
            width = channels
        self.final = Convolution(width, out_channels, kernel_size=1)

    @classmethod
    def unet34c(cls, in_channels: int = 3, out_channels: int = 256) -> "MinkUNet":
        """Build minkUNet34C, the published point encoder."""
        return cls(in_channels, out_channels, PLANES_C, LAYERS_34)

    @classmethod
    def unet18a(cls, in_channels: int = 3, out_channels: int = 256) -> "MinkUNet":
        """Build minkUNet18A, the published base-or-novel network."""
        return cls(in_channels, out_channels, PLANES_A, LAYERS_18)

    def forward(self, x: SparseTensor) -> tuple[SparseTensor, Tensor]:
        """Run the network on the finest level.

        Returns:
            The bottleneck (stride 16), and V x out features in the row order of the batch's input coordinates.
        """
        x = normed_convolution(self.conv0p1s1, self.bn0, x)
        skips = [x]
        for level, name in enumerate(("conv1p1s2", "conv2p2s2", "conv3p4s2", "conv4p8s2")):
            x = self._stage(name, f"bn{level + 1}", x)
            x = self.get_submodule(f"block{level + 1}")(x)
            skips.append(x)
        bottleneck = skips.pop()
        for level, name in enumerate(("convtr4p16s2", "convtr5p8s2", "convtr6p4s2", "convtr7p2s2")):
            x = self._stage(name, f"bntr{level + 4}", x)
            x = self.get_submodule(f"block{level + 5}")(concatenate(x, skips.pop()))
        return bottleneck, self.final(x).features_as_given()

    def _stage(self, convolution: str, norm: str, x: SparseTensor) -> SparseTensor:
        module = cast(Convolution | TransposedConvolution, self.get_submodule(convolution))
        return normed_convolution(module, cast(BatchNorm, self.get_submodule(norm)), x)


class PointEncoder(nn.Module):
    """Encoder of points: point features and a global feature per sample, sized as text embeddings (section 3.2).

    Args:
        unet: the sparse U-Net.
        feature_channels: channels of the U-Net's output.
        embedding_channels: D, size of text embeddings.
    """

    def __init__(self, unet: MinkUNet, feature_channels: int = 256, embedding_channels: int = 768) -> None:
        super().__init__()
        self.encoder = unet
        self.point2text_adapter = nn.Linear(unet.bottleneck_channels, embedding_channels)
        self.decoder = nn.Linear(feature_channels, embedding_channels)

    def forward(self, voxels: Voxels) -> tuple[Tensor, Tensor]:
        """Encode a batch, as a `PointNetwork` does.

        Returns:
            B x D global feature (the maximum over a sample's bottleneck voxels; zero for a sample without voxels), and
            V x D voxel features in the row order of the coordinates.
        """
        bottleneck, features = self.encoder(voxels.sparse)
        conditions = self.point2text_adapter(bottleneck.features)
        pooled = max_pool_samples(conditions, bottleneck.coordinates[:, 0], voxels.batch_size)
        return pooled, self.decoder(features)


class BinaryHead(nn.Module):
    """Base-or-novel logit of every voxel, from a U-Net of its own (section 3.2).

    Args:
        unet: the sparse U-Net.
        feature_channels: channels of the U-Net's output.
    """

    def __init__(self, unet: MinkUNet, feature_channels: int = 256) -> None:
        super().__init__()
        self.encoder = unet
        self.batch_norm = nn.BatchNorm1d(feature_channels)
        self.fc = nn.Linear(feature_channels, 1)

    def forward(self, voxels: Voxels) -> Tensor:
        """Return V logits (positive: base) in the row order of the coordinates."""
        features = self.encoder(voxels.sparse)[1]
        return self.fc(functional.relu(self.batch_norm(features)))[:, 0]


def _stage(in_channels: int, channels: int, blocks: int) -> nn.Sequential:
    more = (BasicBlock(channels, channels) for _ in range(blocks - 1))
    return nn.Sequential(BasicBlock(in_channels, channels), *more)
