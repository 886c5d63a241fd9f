"""Settings by which one view becomes a sample: made once from the configuration, which alone has the defaults."""

from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import numpy as np

EVERYTHING = 1 << 62


@dataclass(frozen=True)
class ViewFilter:
    """Requirements of a view that is used; a view without labels is not asked for labelled points.

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
        """Return whether a view with `count` visible points of these classes (ignored where `ignored`) may be used."""
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


@dataclass(frozen=True)
class ViewSettings:
    """Settings that, with a view, the classes and the random numbers, determine a sample.

    Attributes:
        image_size: (height, width) of the image and the label map.
        voxel_size: edge of a voxel in metres.
        border: pixels at the frame's edge that see nothing.
        depth_tolerance: share of the depth by which a visible point may differ.
        filter: requirements of a view; none by default.
        augmentation: random changes; None for none.
        angle: turn about z in radians where no augmentation rotates.
        voxel_order: order of the voxels, see `voxelise`.
        bad_views: fate of a damaged view: "skip" reports it and takes another, "refuse" stops.
        cache: folder for visibility, see `Visibility`; None keeps nothing.
    """

    image_size: tuple[int, int]
    voxel_size: float
    border: int
    depth_tolerance: float
    filter: ViewFilter = ViewFilter()
    augmentation: Augmentation | None = None
    angle: float = 0.0
    voxel_order: Literal["grid", "hash"] = "grid"
    bad_views: Literal["skip", "refuse"] = "skip"
    cache: Path | None = None
