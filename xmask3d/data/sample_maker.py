"""Construction of samples: one view and the points it sees, as tensors (paper section 3.1)."""

import numpy as np
import torch

from xmask3d.data.images import resize_nearest, resize_to_unit
from xmask3d.data.regions import region_map
from xmask3d.data.sample import Sample
from xmask3d.data.scene import Scene, View
from xmask3d.data.view_settings import ViewSettings
from xmask3d.geometry.augment import elastic_distortion, jitter_colors, random_flips
from xmask3d.geometry.camera import visible_points
from xmask3d.geometry.voxels import axis_rotation, random_rotation_scale, voxelise
from xmask3d.splits import Benchmark


def make_sample(
    scene: Scene,
    view: View,
    benchmark: Benchmark,
    settings: ViewSettings,
    *,
    rng: np.random.Generator | None = None,
    visible: tuple[np.ndarray, np.ndarray] | None = None,
    with_label_map: bool = True,
    regions: np.ndarray | None = None,
) -> Sample | None:
    """Make the sample of a view.

    Args:
        scene, view: scene and one of its views.
        benchmark: class list that gives training ids.
        settings: sizes, filter and augmentation.
        rng: random generator of the augmentation; None for no augmentation.
        visible: indices and pixels of the visible points, if already known.
        with_label_map: read the view's label picture, which only training needs.
        regions: n int, region of each point of the scene, to train on instead of labels. No label is then read, every
            point counts as unlabelled, and the label map shows the regions, see `region_map`.

    Returns:
        None if the view does not show enough.

    Raises:
        UserError: a file of a view that is decoded on demand is damaged.
    """
    if visible is None:
        border, tolerance = settings.border, settings.depth_tolerance
        frame = view.depth.shape
        visible = visible_points(scene.points, view.pose, view.intrinsics, frame, view.depth, border, tolerance)
    index, pixels = visible
    classes = None if regions is not None or scene.labels is None else np.asarray(scene.labels[index])
    if not len(index) or not settings.filter.accept(classes, len(index), benchmark.num_classes):
        return None
    # Steps that can fail come before any random number is drawn, so that a damaged view does not change the next one.
    image = _image_tensor(view.image, settings.image_size)
    if regions is None:
        labels = _labels(classes, view if with_label_map else None, benchmark, settings.image_size)
    else:
        drawn = region_map(regions[index], pixels, view.image.shape[:2], settings.image_size)
        labels = _without_labels(len(index), benchmark.num_base, drawn)
    points, colors = _rows(scene.points, index), _rows(scene.colors, index)
    rotation, scale, shift = axis_rotation(2, settings.angle), 1.0, np.zeros(3, np.int64)
    shaped, tinted = points, colors
    choice = settings.augmentation
    if rng is not None and choice is not None:
        if choice.shape:
            shaped = random_flips(elastic_distortion(points, rng), rng)
        if choice.rotate:
            rotation, scale = random_rotation_scale(rng)
        if choice.color:
            tinted = jitter_colors(colors, rng)
        if choice.shift:
            shift = rng.integers(0, choice.shift, size=3)
    voxels = voxelise(shaped, settings.voxel_size, rotation, scale, settings.voxel_order)
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
    """Select rows; `take` is several times as fast as indexing, but would first copy a non-contiguous array."""
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


def _without_labels(count: int, null: int, drawn: np.ndarray) -> dict[str, torch.Tensor]:
    unknown = torch.full((count,), -1)
    return {"labels": torch.full((count,), null), "binary_labels": unknown, "label_map": torch.from_numpy(drawn)}
