"""One view and the points it sees, as tensors (paper section 3.1)."""

from dataclasses import dataclass
from typing import Literal

import numpy as np
import torch

from xmask3d.data.images import resize_nearest, resize_to_unit
from xmask3d.data.sample import Sample
from xmask3d.data.scene import Scene, View
from xmask3d.geometry.augment import elastic_distortion, jitter_colors, random_flips
from xmask3d.geometry.camera import visible_points
from xmask3d.geometry.voxels import axis_rotation, random_rotation_scale, voxelise
from xmask3d.splits import Benchmark

EVERYTHING = 1 << 62


@dataclass(frozen=True)
class Limits:
    """What a view must show to be used; a view without labels is not asked for labelled points.

    Attributes:
        min_points, max_points: fewest and most visible points.
        min_labelled: fewest visible points of a class that counts.
        counted: ids of the classes that count, all but the ignored one by default.
    """

    min_points: int = 1
    max_points: int = EVERYTHING
    min_labelled: int = 0
    counted: tuple[int, ...] | None = None

    def accept(self, classes: np.ndarray | None, count: int, ignored: int) -> bool:
        """Whether a view with `count` visible points of these classes (ignored where `ignored`) may be used."""
        if not self.min_points <= count <= self.max_points:
            return False
        if not self.min_labelled or classes is None:
            return True
        labelled = classes != ignored if self.counted is None else np.isin(classes, self.counted)
        return bool(np.count_nonzero(labelled) >= self.min_labelled)


@dataclass(frozen=True)
class Augmentation:
    """Random changes of a sample's voxels; points and pixels stay as they are.

    Attributes:
        rotate: turn about z by any angle, tilt by up to 180/64 degrees, scale by 0.9 to 1.1.
        shape: elastic distortion and flips.
        color: contrast, shift and noise of the colours.
        shift: voxel coordinates are moved by 0 to this many cells (exclusive) on each axis; 0 is none. It changes
            which cells the strided convolutions join.
    """

    rotate: bool = True
    shape: bool = False
    color: bool = False
    shift: int = 100


def make_sample(
    scene: Scene,
    view: View,
    benchmark: Benchmark,
    *,
    image_size: tuple[int, int] = (512, 512),
    voxel_size: float = 0.02,
    border: int = 10,
    depth_tolerance: float = 0.25,
    generator: np.random.Generator | None = None,
    augmentation: Augmentation | None = None,
    limits: Limits | None = None,
    angle: float = 0.0,
    visible: tuple[np.ndarray, np.ndarray] | None = None,
    order: Literal["grid", "hash"] = "grid",
    with_label_map: bool = True,
) -> Sample | None:
    """Make the sample of a view.

    Args:
        scene, view: of each other.
        benchmark: gives training ids.
        image_size: (height, width) of the image and the label map.
        voxel_size: edge in metres.
        border, depth_tolerance: see `project_points`; unused where `visible` is given.
        generator: source of the augmentation; None for none.
        augmentation: what to change, the published choice by default.
        limits: what the view must show; anything by default.
        angle: turn about z in radians, without augmentation.
        visible: indices and pixels of the visible points where they are known already.
        order: of the voxels, see `voxelise`.
        with_label_map: whether the view's label picture is read; only training needs it.

    Returns:
        None if the view does not show enough.

    Raises:
        UserError: a damaged file behind a view that is read when used.
    """
    if visible is None:
        frame = view.depth.shape
        visible = visible_points(scene.points, view.pose, view.intrinsics, frame, view.depth, border, depth_tolerance)
    index, pixels = visible
    classes = None if scene.labels is None else np.asarray(scene.labels[index])
    if not len(index) or not (limits or Limits()).accept(classes, len(index), benchmark.num_classes):
        return None
    # What can fail comes before what draws numbers: a damaged view must not change the next one's augmentation.
    image = _image_tensor(view.image, image_size)
    labels = _labels(classes, view if with_label_map else None, benchmark, image_size)
    points, colors = _rows(scene.points, index), _rows(scene.colors, index)
    rotation, scale, shift = axis_rotation(2, angle), 1.0, np.zeros(3, np.int64)
    shaped, tinted = points, colors
    if generator is not None:
        choice = augmentation or Augmentation()
        if choice.shape:
            shaped = random_flips(elastic_distortion(points, generator), generator)
        if choice.rotate:
            rotation, scale = random_rotation_scale(generator)
        if choice.color:
            tinted = jitter_colors(colors, generator)
        if choice.shift:
            shift = generator.integers(0, choice.shift, size=3)
    voxels = voxelise(shaped, voxel_size, rotation, scale, order)
    return Sample(
        scene=scene.name,
        view=view.name,
        image=image,
        voxel_coords=torch.from_numpy(np.asarray(voxels.coords + shift, np.int32)),
        voxel_features=torch.from_numpy(tinted[voxels.first_point]),
        point_to_voxel=torch.from_numpy(voxels.point_to_voxel),
        points=torch.from_numpy(points),
        point_index=torch.from_numpy(index),
        pixels=torch.from_numpy(pixels),
        **labels,
        caption=view.caption or "",
    )


def _rows(array: np.ndarray, index: np.ndarray) -> np.ndarray:
    """Some rows; `take` is several times as fast as indexing, but would first copy an array with gaps."""
    return array.take(index, 0) if array.flags.c_contiguous else np.asarray(array[index])


def _image_tensor(image: np.ndarray, size: tuple[int, int]) -> torch.Tensor:
    return torch.from_numpy(resize_to_unit(image.transpose(2, 0, 1), size))


def _labels(
    classes: np.ndarray | None, view: View | None, benchmark: Benchmark, image_size: tuple[int, int]
) -> dict[str, torch.Tensor]:
    tensors = {}
    if classes is not None:
        tensors["classes"] = torch.from_numpy(classes.astype(np.int64))
        tensors["labels"] = torch.from_numpy(benchmark.training_labels(classes))
        tensors["binary_labels"] = torch.from_numpy(benchmark.binary_labels(classes))
    if view is not None and view.label_map is not None:
        label_map = resize_nearest(benchmark.training_labels(view.label_map), image_size)
        tensors["label_map"] = torch.from_numpy(np.ascontiguousarray(label_map))
    return tensors
