"""Contracts of the networks that research exchanges, independent of the built-in ones.

`XMask3D`, the feature cache and the labellers use no more of these parts than what stands here. A part is a
`torch.nn.Module`: its parameters train with everything else and are in checkpoints. A pre-trained network that never
trains is kept out of both by `FrozenNetworks`.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, Protocol, cast

from torch import Tensor, nn

from xmask3d.models.pyramid import COARSEST_STRIDE, FINEST_STRIDE

if TYPE_CHECKING:
    from xmask3d.sparse import Voxels

Encoded = Any  # content of images as its encoder gives it; nobody else looks inside


class PointNetwork(Protocol):
    """Encoder of points. Made as `Class(dim=D, **options)`, where D is the size of text embeddings."""

    def __call__(self, voxels: Voxels) -> tuple[Tensor, Tensor]:
        """Encode the occupied voxels of a batch.

        Args:
            voxels: V x 4 `coordinates` (sample, x, y, z), V x 3 `features` and the number B of samples, `batch_size`.

        Returns:
            B x D global features, which condition the image features, and V x D voxel features in the order of the
            coordinates.
        """


class ImageEncoder(Protocol):
    """Part of a network that reads images alone, so that its output can be kept from epoch to epoch."""

    def encode(self, images: Tensor) -> Encoded:
        """Encode B x 3 x H x W images in [0, 1], without gradient."""

    def pack(self, encoded: Encoded) -> list[Tensor]:
        """Flatten encoded images to a list of tensors whose first axis is the image."""

    def unpack(self, tensors: Sequence[Tensor]) -> Encoded:
        """Undo `pack`, for tensors in any floating-point type."""

    def numbers_per_image(self, image_size: tuple[int, int]) -> int:
        """Count the numbers of all packed tensors of one image of a height and width."""

    def frozen_networks(self) -> Sequence[nn.Module]:
        """List the networks that determine the result of `encode`; a feature cache is valid for these weights."""


class ImageFeatures(ImageEncoder, Protocol):
    """Feature maps of images under a 3D condition. Made as `Class(dim=D, **options)`.

    Attributes:
        channels: channels of each map.
        strides: pixels of the image per cell of each map: 4, 8, 16 and 32, each at least once. Maps that are finer or
            coarser are resized to the nearest of these.
    """

    @property
    def channels(self) -> Sequence[int]: ...

    @property
    def strides(self) -> Sequence[int]: ...

    def __call__(self, encoded: Encoded, global_feature: Tensor) -> Sequence[Tensor]:
        """Make the maps.

        Args:
            encoded: B images by `encode`.
            global_feature: B x D, of the points of each view: the condition, which is to pass gradient.

        Returns:
            For each of `channels` a map B x C x H/stride x W/stride.
        """


def misfit(part: object, contract: type) -> str | None:
    """Find the reason why an object does not fulfil a contract: one phrase, or None where it fits.

    Args:
        part: made network.
        contract: one of this file's.
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
