"""Rendering of meshes by ray casting: colour, depth, instance and label of every pixel."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from xmask3d.rooms.mesh import FloatArray, Mesh, merge
from xmask3d.rooms.shading import Light, Looks, RayCaster


@dataclass(frozen=True)
class Frame:
    """Rendered view of a camera.

    Attributes:
        color: H x W x 3 uint8.
        depth: H x W float32, metres along the optical axis, 0 where nothing is hit.
        instance: H x W int32, index of the mesh in the renderer's list, -1 where nothing is hit.
        label: H x W int32, class id, 255 where nothing is hit.
    """

    color: NDArray[np.uint8]
    depth: NDArray[np.float32]
    instance: NDArray[np.int32]
    label: NDArray[np.int32]


class Renderer:
    """Meshes in the world frame, ready for ray casting.

    Args:
        meshes: any number of meshes; an instance is an index into this list.
        labels: class id of each mesh; 255 for all if left out.
        light: light on the surfaces.
        background: colour where no surface is hit, red, green, blue in [0, 1].
    """

    def __init__(
        self,
        meshes: Sequence[Mesh],
        labels: Sequence[int] | None = None,
        light: Light | None = None,
        background: Sequence[float] = (0.0, 0.0, 0.0),
    ) -> None:
        self.light = light or Light()
        self.background = np.asarray(background, np.float32)
        self.mesh = merge(*meshes)
        if len(self.mesh.faces) == 0:
            raise ValueError("nothing to draw: the meshes have no faces")
        count = [len(mesh.faces) for mesh in meshes]
        self.face_instance = np.repeat(np.arange(len(meshes), dtype=np.int32), count)
        self.face_label = np.repeat(np.asarray([255] * len(meshes) if labels is None else labels, np.int32), count)
        self.rays = RayCaster(self.mesh, Looks.of(self.mesh, self.light), self.light)

    def render(
        self,
        pose: NDArray[np.floating],
        intrinsics: NDArray[np.floating],
        height: int,
        width: int,
        colored: bool = True,
    ) -> Frame:
        """Draw one picture.

        Args:
            pose: 4 x 4, camera to world; the camera looks along +z, x right, y down.
            intrinsics: 3 x 3 or larger: focal lengths and principal point in pixels.
            colored: compute the colours, which are most of the work; otherwise they are black.
        """
        hits = self.rays.cast(*camera_rays(pose, intrinsics, height, width), colored)
        missed = np.flatnonzero(hits.face < 0)
        color = hits.color
        if colored:
            color[missed] = self.background
        instance, label = self.face_instance[hits.face], self.face_label[hits.face]
        instance[missed], label[missed] = -1, 255
        np.clip(color * np.float32(255) + np.float32(0.5), 0, 255, out=color)
        return Frame(
            color.astype(np.uint8).reshape(height, width, 3),
            hits.distance.reshape(height, width),
            instance.reshape(height, width),
            label.reshape(height, width),
        )


def camera_rays(pose: NDArray, intrinsics: NDArray, height: int, width: int) -> tuple[FloatArray, FloatArray]:
    """Return starts and rays, N x 3 each; rays have a depth of 1, so distances along them equal depths."""
    k, pose = np.asarray(intrinsics, np.float32), np.asarray(pose, np.float32)
    across = ((np.arange(width, dtype=np.float32) - k[0, 2]) / k[0, 0])[:, None] * pose[:3, 0]
    down = ((np.arange(height, dtype=np.float32) - k[1, 2]) / k[1, 1])[:, None] * pose[:3, 1]
    rays = np.ascontiguousarray((across + down[:, None] + pose[:3, 2]).reshape(-1, 3))
    return np.ascontiguousarray(np.broadcast_to(pose[:3, 3], rays.shape)), rays


def look_at(eye: Sequence[float] | NDArray, target: Sequence[float] | NDArray) -> NDArray[np.float64]:
    """Return the camera-to-world matrix (4 x 4) of an upright camera at `eye` that looks at `target`; z is up."""
    position = np.asarray(eye, np.float64)
    forward = np.asarray(target, np.float64) - position
    forward /= np.linalg.norm(forward)
    right = np.cross(forward, [0.0, 0.0, 1.0])
    if np.linalg.norm(right) < 1e-6:
        right = np.array([1.0, 0.0, 0.0])
    right /= np.linalg.norm(right)
    pose = np.eye(4)
    pose[:3, 0], pose[:3, 1], pose[:3, 2], pose[:3, 3] = right, np.cross(forward, right), forward, position
    return pose
