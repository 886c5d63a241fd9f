"""Settings for making a sample of a view, made once from the configuration, which alone has the defaults."""

from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import numpy as np

EVERYTHING = 1 << 62


@dataclass(frozen=True)
class ViewFilter:
    """Requirements for a usable view; a view without labels does not need labelled points.

    Attributes:
        min_points, max_points: fewest and most visible points.
        min_labelled: fewest visible points of the classes in `counted`.
        counted: ids of the classes that count; by default all but the ignored one.
    """

    min_points: int = 1
    max_points: int = EVERYTHING
    min_labelled: int = 0
    counted: tuple[int, ...] | None = None

    def accept(self, classes: np.ndarray | None, count: int, ignored: int) -> bool:
        """Return True if a view with `count` visible points of these classes (one is `ignored`) may be used."""
        if not self.min_points <= count <= self.max_points:
            return False
        if not self.min_labelled or classes is None:
            return True
        labelled = classes != ignored if self.counted is None else np.isin(classes, self.counted)
        return bool(np.count_nonzero(labelled) >= self.min_labelled)


@dataclass(frozen=True)
class Augmentation:
    """Random changes of a sample's voxels; points and pixels do not change.

    Attributes:
        rotate: rotate about z by any angle, tilt by up to 180/64 degrees, and scale by 0.9 to 1.1.
        shape: apply elastic distortion and flips.
        color: change contrast, brightness and noise of the colours.
        shift: move voxel coordinates by 0 up to this number of cells (exclusive) on each axis, which changes the cells
            that strided convolutions join; 0 for no shift.
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
        border: width of the ignored edge of a frame, in pixels.
        depth_tolerance: allowed difference between a visible point's depth and the frame's, as a share of the depth.
        filter: requirements for a usable view; none by default.
        augmentation: random changes; None for no changes.
        angle: rotation about z in radians, if no augmentation rotates.
        voxel_order: order of the voxels, see `voxelise`.
        bad_views: treatment of a damaged view: "skip" reports it and takes another one, "refuse" stops.
        cache: folder for visible points, see `Visibility`; None to keep nothing.
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
