"""Contracts of the networks that research may replace, independent of the built-in ones.

`XMask3D`, the feature cache and the labellers use these parts only through the contracts below. A part is a
`torch.nn.Module`: its parameters are trained with all others and saved in checkpoints. `FrozenNetworks` keeps a
pre-trained network that never trains out of both.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, Protocol, cast

from torch import Tensor, nn

from xmask3d.models.pyramid import COARSEST_STRIDE, FINEST_STRIDE

if TYPE_CHECKING:
    from xmask3d.sparse import Voxels

Encoded = Any  # images as encoded by a part; only that part knows the type


class PointNetwork(Protocol):
    """Encoder of points. It is constructed as `Class(dim=D, **options)`, where D is the size of text embeddings."""

    def __call__(self, voxels: Voxels) -> tuple[Tensor, Tensor]:
        """Encode the occupied voxels of a batch.

        Args:
            voxels: V x 4 `coordinates` (sample, x, y, z), V x 3 `features` and the number B of samples, `batch_size`.

        Returns:
            B x D global features, which condition the image features, and V x D voxel features in the order of the
            coordinates.
        """


class ImageEncoder(Protocol):
    """Part of a network that depends on images alone, so its output can be cached from epoch to epoch."""

    def encode(self, images: Tensor) -> Encoded:
        """Encode B x 3 x H x W images in [0, 1], without gradient."""

    def pack(self, encoded: Encoded) -> list[Tensor]:
        """Convert encoded images to a list of tensors whose first axis is the image."""

    def unpack(self, tensors: Sequence[Tensor]) -> Encoded:
        """Undo `pack`, for tensors in any floating-point type."""

    def numbers_per_image(self, image_size: tuple[int, int]) -> int:
        """Count the numbers in all packed tensors of one image of the given height and width."""

    def frozen_networks(self) -> Sequence[nn.Module]:
        """List the networks that determine the result of `encode`; a feature cache is valid only for their weights."""


class ImageFeatures(ImageEncoder, Protocol):
    """Feature maps of images under a 3D condition. It is constructed as `Class(dim=D, **options)`.

    Attributes:
        channels: channels of each map.
        strides: pixels of the image per cell of each map: 4, 8, 16 and 32, each at least once. Finer and coarser maps
            are resized to the nearest of these.
    """

    @property
    def channels(self) -> Sequence[int]: ...

    @property
    def strides(self) -> Sequence[int]: ...

    def __call__(self, encoded: Encoded, global_feature: Tensor) -> Sequence[Tensor]:
        """Make the maps.

        Args:
            encoded: B images, encoded by `encode`.
            global_feature: B x D, global feature of each view's points. It is the condition and must receive a
                gradient.

        Returns:
            A map B x C x H/stride x W/stride for each of `channels`.
        """


def misfit(part: object, contract: type) -> str | None:
    """Return the reason why an object does not fulfil a contract, or None if it does.

    Args:
        part: the constructed network.
        contract: a contract of this module.
    """
    if not isinstance(part, nn.Module):
        return "it is no torch.nn.Module"
    names = {name for base in contract.__mro__ if base.__module__ == __name__ for name in vars(base)}
    missing = sorted(name for name in names if not name.startswith("_") and not hasattr(part, name))
    if type(part).forward is nn.Module.forward:
        missing.append("forward")
    if missing:
        return f"it has no {', '.join(missing)}"
    if contract is ImageFeatures:
        features = cast(ImageFeatures, part)
        strides, channels = list(features.strides), list(features.channels)
        levels = sorted({min(max(stride, FINEST_STRIDE), COARSEST_STRIDE) for stride in strides})
        if levels != [4, 8, 16, 32] or len(channels) != len(strides):
            return f"its maps have strides {strides} and channels {channels}, see the contract"
    return None
