"""Frames of a recording as the networks, the fusion and the choice of views take them."""

import numpy as np

from xmask3d.data.scene import View
from xmask3d.errors import UserError
from xmask3d.geometry.camera import visible_points
from xmask3d.scan.coverage import cells_of
from xmask3d.scan.recording import Calibration, Recording, resample, scale_matrix
from xmask3d.scan.views import (
    Box,
    as_intrinsics,
    depth_on_grid,
    grid_matrix,
    image_on_grid,
    lift,
    load_depth_metres,
)

GRID = (240, 320)  # height and width of the frame grid


class Frames:
    """Frames of a recording on the frame grid under one calibration."""

    def __init__(
        self,
        recording: Recording,
        calibration: Calibration,
        world: np.ndarray,
        boxes: list[Box],
        farthest: float,
    ) -> None:
        self._recording, self._calibration, self._boxes, self._farthest = recording, calibration, boxes, farthest
        self._world = world
        self._scene = ""
        self.damaged: dict[int, str] = {}  # frames that could not be read, and why
        self._frame_of = {name: i for i, name in enumerate(recording.names)}

    def turn(self, rotation: np.ndarray, scene: str) -> None:
        """From now on hand out poses in the upright frame, under the name of the scene."""
        upright = np.eye(4)
        upright[:3, :3] = rotation
        self._world, self._scene = upright @ self._world, scene

    def view_name(self, frame: int, part: int) -> str:
        """Frame name, with the part's number where pictures are cut."""
        name = self._recording.names[frame]
        return name if len(self._boxes) == 1 else f"{name}#{part}"

    def view(self, name: str) -> View:
        """One view as the networks take it."""
        frame_name, _, part = name.rpartition("#") if len(self._boxes) > 1 else (name, "", "0")
        frame, box = self._frame_of[frame_name], self._boxes[int(part)]
        matrix = grid_matrix(self._calibration.color_of(frame), box, GRID)
        depth = load_depth_metres(self._recording, self._calibration, frame, self._farthest)
        return View(
            scene=self._scene,
            name=name,
            image=image_on_grid(self._recording.load_color(frame), box, GRID),
            depth=depth_on_grid(depth, self._calibration.depth_of(frame), matrix, GRID),
            pose=self._world[frame],
            intrinsics=as_intrinsics(matrix),
        )

    def for_fusion(self, frame: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Depth, points and colours of a frame, on a grid of the depth camera; empty if damaged."""
        size = self._recording.depth_size
        grid = size if size[0] * size[1] <= GRID[0] * GRID[1] else GRID
        try:
            full = load_depth_metres(self._recording, self._calibration, frame, self._farthest)
            picture = self._recording.load_color(frame)
        except UserError as error:
            self.damaged[frame] = str(error)
            return np.zeros((1, 1), np.float32), np.zeros((1, 1, 3), np.float32), np.zeros((1, 1, 3), np.uint8)
        rows, columns = resample(size, grid)
        depth = full[rows][:, columns]
        matrix = self._calibration.depth_of(frame)[:]
        points = lift(depth, scale_matrix(matrix, size, grid), self._world[frame])
        color = self._calibration.color_of(frame)
        # Pixels of the depth camera in the colour picture; both look from the same place.
        v = np.round((rows - matrix[1, 2]) / matrix[1, 1] * color[1, 1] + color[1, 2]).astype(int)
        u = np.round((columns - matrix[0, 2]) / matrix[0, 0] * color[0, 0] + color[0, 2]).astype(int)
        outside_v, outside_u = (v < 0) | (v >= picture.shape[0]), (u < 0) | (u >= picture.shape[1])
        depth = np.where(outside_v[:, None] | outside_u[None], 0, depth)
        return depth, points, picture[v.clip(0, picture.shape[0] - 1)][:, u.clip(0, picture.shape[1] - 1)]

    def coarse_cells(self, frame: int) -> np.ndarray:
        """Coarse voxels that a frame sees; none if its depth is damaged."""
        size = self._recording.depth_size
        grid = (min(60, size[0]), min(80, size[1]))
        try:
            depth = load_depth_metres(self._recording, self._calibration, frame, self._farthest)
        except UserError as error:
            self.damaged[frame] = str(error)
            return np.zeros(0, np.int64)
        rows, columns = resample(size, grid)
        matrix = scale_matrix(self._calibration.depth_of(frame), size, grid)
        return cells_of(lift(depth[rows][:, columns], matrix, self._world[frame]).reshape(-1, 3))

    def agreement_with(self, points: np.ndarray, frames: np.ndarray) -> float:
        """Share of a cloud's points in the frames' sight, at or before the measured depth, that lie on it (5 %)."""
        sample = points[:: max(1, len(points) // 50_000)]
        on = before = 0
        for frame in frames:
            frame = int(frame)
            depth = load_depth_metres(self._recording, self._calibration, frame, self._farthest)
            k = as_intrinsics(self._calibration.depth_of(frame))
            pose, size = self._world[frame], depth.shape
            near, _ = visible_points(sample, pose, k, size, depth, border=2, tolerance=0.05)
            inside, pixels = visible_points(sample, pose, k, size, None, border=2)
            z = (sample[inside] - pose[:3, 3]) @ pose[:3, 2]
            measured = depth[pixels[:, 0], pixels[:, 1]]
            on += len(near)
            before += int(((measured > 0) & (z < 1.05 * measured)).sum())
        return on / max(before, 1)
