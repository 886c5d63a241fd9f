"""Recording: posed colour and depth frames as stored on disk, and the calibration for reading them."""

from collections.abc import Callable
from dataclasses import dataclass, field, replace
from pathlib import Path

import numpy as np

from xmask3d.errors import UserError

OPENGL = np.diag([1.0, -1.0, -1.0, 1.0])  # camera axes x right, y up, z backward -> x right, y down, z forward
CONVENTIONS = {
    "camera-to-world": "camera-to-world",
    "world-to-camera": "world-to-camera (the inverse)",
    "camera-to-world, y up": "camera-to-world with the camera's y up and z backward (ARKit, OpenGL)",
    "world-to-camera, y up": "world-to-camera with the camera's y up and z backward (ARKit, OpenGL)",
}


def camera_to_world(poses: np.ndarray, convention: str) -> np.ndarray:
    """Convert poses n x 4 x 4 as written to camera-to-world with y down and z forward."""
    if convention.startswith("world"):
        poses = np.linalg.inv(poses)
    return poses @ OPENGL if convention.endswith("y up") else poses


@dataclass(frozen=True)
class Calibration:
    """Calibration of a recording.

    Attributes:
        color, depth: 3 x 3 pinhole matrices of the colour and the depth pictures, or n x 3 x 3, one per frame.
        units_per_metre: number of depth units in one metre.
        convention: key of `CONVENTIONS`.
    """

    color: np.ndarray
    depth: np.ndarray
    units_per_metre: float
    convention: str

    def color_of(self, index: int) -> np.ndarray:
        """Return the 3 x 3 matrix of one frame's colour picture."""
        return self.color if self.color.ndim == 2 else self.color[index]

    def depth_of(self, index: int) -> np.ndarray:
        """Return the 3 x 3 matrix of one frame's depth map."""
        return self.depth if self.depth.ndim == 2 else self.depth[index]


@dataclass
class Recording:
    """Posed RGB-D frames.

    Attributes:
        kind: description of the kind of recording.
        path: folder or file of the recording.
        names: n frame names, in order.
        load_color, load_depth: map a frame number to h x w x 3 uint8, and to h x w float32 as written (0 unknown).
        poses: n x 4 x 4 as written, finite.
        color_size, depth_size: (height, width) of the pictures.
        color_matrices, depth_matrices: candidates for the intrinsics, the most likely first; (description, 3 x 3 or n x
            3 x 3).
        units: candidates for the units per metre, the most likely first.
        conventions: candidates for the pose convention, the most likely first.
        up: axis of the world that points up, if the recorder fixes it.
        unitless: poses and depth have no scale, like those of reconstructions from pictures.
        cloud: point cloud beside the frames, or None.
        rendered: there are no depth maps, so they are rendered from the cloud.
        notes: irregularities, one sentence each.
    """

    kind: str
    path: Path
    names: list[str]
    load_color: Callable[[int], np.ndarray]
    load_depth: Callable[[int], np.ndarray]
    poses: np.ndarray
    color_size: tuple[int, int]
    depth_size: tuple[int, int]
    color_matrices: list[tuple[str, np.ndarray]]
    depth_matrices: list[tuple[str, np.ndarray]]
    units: tuple[float, ...] = (1000.0, 5000.0, 4000.0, 10000.0, 1.0)
    conventions: tuple[str, ...] = tuple(CONVENTIONS)
    up: str | None = None
    unitless: bool = False
    cloud: Path | None = None
    rendered: bool = False
    notes: list[str] = field(default_factory=list)

    def __len__(self) -> int:
        return len(self.names)

    def keep(self, indices: np.ndarray) -> "Recording":
        """Return the same recording with only these frames (n bool or integers)."""
        chosen = np.arange(len(self))[indices]

        def pick(matrices: list[tuple[str, np.ndarray]]) -> list[tuple[str, np.ndarray]]:
            return [(words, m[chosen] if m.ndim == 3 else m) for words, m in matrices]

        return replace(
            self,
            names=[self.names[i] for i in chosen],
            load_color=lambda i: self.load_color(chosen[i]),
            load_depth=lambda i: self.load_depth(chosen[i]),
            poses=self.poses[chosen],
            color_matrices=pick(self.color_matrices),
            depth_matrices=pick(self.depth_matrices),
        )

    def without_lost_frames(self) -> "Recording":
        """Leave out frames whose pose is not finite or not rigid, with a note; a last row of zeros is corrected."""
        poses, last = self.poses.copy(), np.array([0, 0, 0, 1.0])
        poses[~poses[:, 3].any(1), 3] = last
        finite = np.isfinite(poses).all((1, 2))
        usable = np.where(finite[:, None, None], poses, np.eye(4))
        good = finite & (np.abs(np.linalg.det(usable[:, :3, :3]) - 1) < 0.05)
        good &= (np.abs(usable[:, 3] - last) < 1e-3).all(1)
        if not good.any():
            raise UserError(
                f"{self.path}: none of the {len(self)} poses is a rigid motion (finite, a rotation, last row 0 0 0 1)"
            )
        whole = replace(self, poses=poses)
        if good.all():
            return whole
        kept = whole.keep(good)
        kept.notes = [*self.notes, f"{(~good).sum()} of {len(self)} frames have no valid pose and are left out"]
        return kept


def resample(size: tuple[int, int], out: tuple[int, int]) -> tuple[np.ndarray, np.ndarray]:
    """Return the rows and columns of nearest pixels that resize a picture of `size` to `out`, as in `scale_matrix`."""
    rows = np.clip(np.round((np.arange(out[0]) + 0.5) * size[0] / out[0] - 0.5), 0, size[0] - 1).astype(int)
    columns = np.clip(np.round((np.arange(out[1]) + 0.5) * size[1] / out[1] - 0.5), 0, size[1] - 1).astype(int)
    return rows, columns
