"""Batch of samples: the input of the network and of the losses."""

from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor

from xmask3d.data.sample import Sample


@dataclass
class Batch:
    """B samples: per-point and per-voxel tensors are concatenated, images stacked.

    Attributes:
        scenes, views, captions: B strings each.
        images: B x 3 x H x W float32 in [0, 1].
        voxel_coords: V x 4 int32 rows (sample, x, y, z).
        voxel_features: V x 3 float32.
        point_to_voxel: N int64, row of each point's voxel among all V voxels of the batch.
        point_batch: N int64, sample of each point, ascending.
        points: N x 3 float32. point_index: N int64. pixels: N x 2 int64.
        classes, labels, binary_labels: N int64, see `Sample`. label_maps: B x H x W int64.
    """

    scenes: list[str]
    views: list[str]
    captions: list[str]
    images: Tensor
    voxel_coords: Tensor
    voxel_features: Tensor
    point_to_voxel: Tensor
    point_batch: Tensor
    points: Tensor
    point_index: Tensor
    pixels: Tensor
    classes: Tensor | None = None
    labels: Tensor | None = None
    binary_labels: Tensor | None = None
    label_maps: Tensor | None = None

    @property
    def size(self) -> int:
        """Number of samples, B."""
        return len(self.views)

    def to(self, device: torch.device | str, dtype: torch.dtype | None = None) -> "Batch":
        """Copy to a device; floating-point tensors also to `dtype`, if given."""

        def move(value: Any) -> Any:
            if not isinstance(value, Tensor):
                return value
            cast = dtype if value.is_floating_point() else None
            return value.to(device, cast, non_blocking=True)

        return replace(self, **{name: move(value) for name, value in vars(self).items()})

    def pin_memory(self) -> "Batch":
        """Copy to page-locked memory, which a GPU reads asynchronously; loaders with `pin_memory` call this."""

        def pin(value: Any) -> Any:
            return value.pin_memory() if isinstance(value, Tensor) else value

        return replace(self, **{name: pin(value) for name, value in vars(self).items()})


def collate(samples: list[Sample]) -> Batch:
    """Join samples into a batch, in which the voxel rows of later samples are offset."""

    def optional(name: str, join) -> Tensor | None:
        parts = [getattr(sample, name) for sample in samples]
        return None if any(part is None for part in parts) else join(parts)

    counts = torch.tensor([0] + [len(sample.voxel_coords) for sample in samples]).cumsum(0)
    coords = [
        torch.cat([torch.full((len(sample.voxel_coords), 1), b, dtype=torch.int32), sample.voxel_coords], 1)
        for b, sample in enumerate(samples)
    ]
    lengths = torch.tensor([len(sample.pixels) for sample in samples])
    return Batch(
        scenes=[sample.scene for sample in samples],
        views=[sample.view for sample in samples],
        captions=[sample.caption for sample in samples],
        images=torch.stack([sample.image for sample in samples]),
        voxel_coords=torch.cat(coords),
        voxel_features=torch.cat([sample.voxel_features for sample in samples]),
        point_to_voxel=torch.cat([sample.point_to_voxel + counts[b] for b, sample in enumerate(samples)]),
        point_batch=torch.repeat_interleave(torch.arange(len(samples)), lengths),
        points=torch.cat([sample.points for sample in samples]),
        point_index=torch.cat([sample.point_index for sample in samples]),
        pixels=torch.cat([sample.pixels for sample in samples]),
        classes=optional("classes", torch.cat),
        labels=optional("labels", torch.cat),
        binary_labels=optional("binary_labels", torch.cat),
        label_maps=optional("label_map", torch.stack),
    )
