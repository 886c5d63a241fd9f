"""What readers hand on, and what the model eats: Scene, View, Sample, Batch."""

from dataclasses import dataclass, field, replace
from typing import Any, Protocol

import numpy as np
import torch
from torch import Tensor

from xmask3d.geometry.camera import Intrinsics


@dataclass
class Scene:
    """A scanned scene.

    Attributes:
        name: such as "scene0011_00".
        points: n x 3 float32, metres, world frame.
        colors: n x 3 float32 in [-1, 1].
        labels: n int64 class ids 0..K-1, K where ignored; None for a scan without truth.
        view_names: names of its views in order, empty for a cloud without images.
    """

    name: str
    points: np.ndarray
    colors: np.ndarray
    labels: np.ndarray | None
    view_names: list[str] = field(default_factory=list)


@dataclass
class View:
    """One posed RGB-D frame.

    Attributes:
        scene, name: where it is from; `name` is the frame's stem.
        image: h x w x 3 uint8 RGB on the frame grid (240 x 320).
        depth: h x w float32 metres, 0 where unknown.
        pose: 4 x 4 float64, camera to world.
        intrinsics: pinhole parameters on the frame grid.
        label_map: h x w int64 class ids 0..K-1, K where ignored; None without truth.
        caption: a sentence about the view, or None.
    """

    scene: str
    name: str
    image: np.ndarray
    depth: np.ndarray
    pose: np.ndarray
    intrinsics: Intrinsics
    label_map: np.ndarray | None = None
    caption: str | None = None


class SceneReader(Protocol):
    """A data set split: names of scenes, and access to one scene or one view at a time."""

    @property
    def scene_names(self) -> list[str]:
        """Names of the scenes, in order."""

    def view_names(self, scene: str) -> list[str]:
        """Names of a scene's views, in order."""

    def read_scene(self, name: str) -> Scene:
        """Read points, colours and labels. Raises `UserError` naming a missing or damaged file."""

    def read_view(self, scene: str, view: str) -> View:
        """Read one frame. Raises `UserError` naming a missing, truncated or NaN-posed file."""


@dataclass
class Sample:
    """One view and the scene points it sees (paper section 3.1), as tensors.

    Attributes:
        scene, view: where it is from.
        image: 3 x H x W float32 in [0, 1], resized to the network's input.
        voxel_coords: V x 3 int32, non-negative.
        voxel_features: V x 3 float32 colours in [-1, 1].
        point_to_voxel: N int64, row of the voxel that a point fell in.
        points: N x 3 float32, metres, world frame, not augmented.
        point_index: N int64, index of each visible point in the scene.
        pixels: N x 2 int64 (row, column) on the frame grid.
        classes: N int64 class ids 0..K-1, K ignored (evaluation); None without truth.
        labels: N int64 training ids: base rank 0..C-1, C for everything else; None without truth.
        binary_labels: N int64, 1 base, 0 novel, -1 ignored; None without truth.
        label_map: H x W int64 training ids of the pixels; None without truth.
        caption: the view's sentence, "" if none.
    """

    scene: str
    view: str
    image: Tensor
    voxel_coords: Tensor
    voxel_features: Tensor
    point_to_voxel: Tensor
    points: Tensor
    point_index: Tensor
    pixels: Tensor
    classes: Tensor | None = None
    labels: Tensor | None = None
    binary_labels: Tensor | None = None
    label_map: Tensor | None = None
    caption: str = ""


@dataclass
class Batch:
    """B samples: per-point and per-voxel tensors are concatenated, images stacked.

    Attributes:
        scenes, views, captions: B strings each.
        images: B x 3 x H x W float32 in [0, 1].
        voxel_coords: V x 4 int32 rows (sample, x, y, z).
        voxel_features: V x 3 float32.
        point_to_voxel: N int64 into the V voxels of the whole batch.
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
        """B, the number of samples."""
        return len(self.views)

    def to(self, device: torch.device | str, dtype: torch.dtype | None = None) -> "Batch":
        """Copy to a device; floating tensors also to `dtype` when given."""

        def move(value: Any) -> Any:
            if not isinstance(value, Tensor):
                return value
            cast = dtype if value.is_floating_point() else None
            return value.to(device, cast, non_blocking=True)

        return replace(self, **{name: move(value) for name, value in vars(self).items()})


def collate(samples: list[Sample]) -> Batch:
    """Join samples into a batch; voxel rows of later samples are offset."""

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
