"""Sample: one view and the scene points it sees, as tensors (paper section 3.1)."""

from dataclasses import dataclass

from torch import Tensor


@dataclass
class Sample:
    """One view and the scene points it sees (paper section 3.1), as tensors.

    Attributes:
        scene, view: names of the scene and of the view.
        image: 3 x H x W float32 in [0, 1], resized to the network's input.
        voxel_coords: V x 3 int32, non-negative.
        voxel_features: V x 3 float32 colours in [-1, 1].
        point_to_voxel: N int64, row of each point's voxel.
        points: N x 3 float32, metres, world frame, not augmented.
        point_index: N int64, index of each visible point in the scene.
        pixels: N x 2 int64 (row, column) on the frame grid.
        classes: N int64 class ids 0..K-1, K for ignored points, used in evaluation; None without truth.
        labels: N int64 training ids: 0..C-1 for base classes, C for everything else; None without truth.
        binary_labels: N int64, 1 base, 0 novel, -1 ignored; None without truth.
        label_map: H x W int64 training ids of the pixels; None without truth.
        caption: caption of the view, "" if there is none.
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
