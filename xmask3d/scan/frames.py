"""Frames of a recording, in the form needed by the networks, the fusion and the choice of views."""

import numpy as np

from xmask3d.data.scene import View
from xmask3d.errors import UserError
from xmask3d.geometry.camera import scale_matrix, visible_points
from xmask3d.scan.coverage import cells_of
from xmask3d.scan.recording import Calibration, Recording, resample
from xmask3d.scan.views import (
    Box,
    as_intrinsics,
    crop_boxes,
    depth_on_grid,
    grid_matrix,
    image_on_grid,
    lift,
    load_depth_metres,
    quarter_turns,
    turn_matrix,
    turn_pose,
)

GRID = (240, 320)  # height and width of the frame grid


class Frames:
    """Frames of a recording on the frame grid under one calibration.

    Args:
        world: n x 4 x 4 camera-to-world poses, y down, z forward.
        farthest: largest depth in metres that is trusted.
    """

    def __init__(self, recording: Recording, calibration: Calibration, world: np.ndarray, farthest: float) -> None:
        self._recording, self._calibration, self._farthest = recording, calibration, farthest
        self._world = world
        self._scene = ""
        self._turns = np.zeros(len(recording), int)
        self.damaged: dict[int, str] = {}  # frames that could not be read, with reasons
        self._whole: set[int] = set()  # frames with both pictures read
        self._frame_of = {name: i for i, name in enumerate(recording.names)}

    def turn(self, rotation: np.ndarray, scene: str) -> int:
        """Use upright pictures and poses from now on, and the name of the scene.

        Returns:
            Number of pictures that are rotated by quarter turns.
        """
        upright = np.eye(4)
        upright[:3, :3] = rotation
        self._world, self._scene = upright @ self._world, scene
        self._turns = np.array([quarter_turns(pose[:3, :3], np.array([0, 0, 1.0])) for pose in self._world])
        return int((self._turns > 0).sum())

    def view_names(self, frame: int) -> list[str]:
        """List the views of a frame: its name, with the number of the part if its picture is cut."""
        name, parts = self._recording.names[frame], len(self._boxes(frame))
        return [name] if parts == 1 else [f"{name}#{part}" for part in range(parts)]

    def _boxes(self, frame: int) -> list[Box]:
        size = self._recording.color_size
        return crop_boxes(size if self._turns[frame] % 2 == 0 else (size[1], size[0]), GRID)

    def view(self, name: str) -> View:
        """Return one view in the form needed by the networks."""
        whole = name in self._frame_of
        frame_name, _, part = (name, "", "0") if whole else name.rpartition("#")
        frame = self._frame_of[frame_name]
        turns, box = int(self._turns[frame]), self._boxes(frame)[int(part)]
        color = self._recording.load_color(frame)
        depth = load_depth_metres(self._recording, self._calibration, frame, self._farthest)
        matrix = turn_matrix(self._calibration.color_of(frame), color.shape[:2], turns)
        matrix = grid_matrix(matrix, box, GRID)
        depth_matrix = turn_matrix(self._calibration.depth_of(frame), depth.shape, turns)
        return View(
            scene=self._scene,
            name=name,
            image=image_on_grid(np.rot90(color, turns), box, GRID),
            depth=depth_on_grid(np.rot90(depth, turns), depth_matrix, matrix, GRID),
            pose=turn_pose(self._world[frame], turns),
            intrinsics=as_intrinsics(matrix),
        )

    def is_whole(self, frame: int) -> bool:
        """Return True if colour and depth of a frame are readable; otherwise `damaged` keeps the reason."""
        if frame not in self.damaged and frame not in self._whole:
            try:
                self._recording.load_color(frame)
                self._recording.load_depth(frame)
                self._whole.add(frame)
            except UserError as error:
                self.damaged[frame] = str(error)
        return frame in self._whole

    def for_fusion(self, frame: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Return depth, points and colours of a frame on the grid of the depth camera; empty if damaged."""
        size = self._recording.depth_size
        grid = size if size[0] * size[1] <= GRID[0] * GRID[1] else GRID
        try:
            full = load_depth_metres(self._recording, self._calibration, frame, self._farthest)
            picture = self._recording.load_color(frame)
            self._whole.add(frame)
        except UserError as error:
            self.damaged[frame] = str(error)
            return np.zeros((1, 1), np.float32), np.zeros((1, 1, 3), np.float32), np.zeros((1, 1, 3), np.uint8)
        rows, columns = resample(size, grid)
        depth = full[rows][:, columns]
        matrix = self._calibration.depth_of(frame)[:]
        points = lift(depth, scale_matrix(matrix, size, grid), self._world[frame])
        color = self._calibration.color_of(frame)
        # Pixels of the depth camera in the colour picture, assuming that both cameras are in the same place.
        v = np.round((rows - matrix[1, 2]) / matrix[1, 1] * color[1, 1] + color[1, 2]).astype(int)
        u = np.round((columns - matrix[0, 2]) / matrix[0, 0] * color[0, 0] + color[0, 2]).astype(int)
        outside_v, outside_u = (v < 0) | (v >= picture.shape[0]), (u < 0) | (u >= picture.shape[1])
        depth = np.where(outside_v[:, None] | outside_u[None], 0, depth)
        return depth, points, picture[v.clip(0, picture.shape[0] - 1)][:, u.clip(0, picture.shape[1] - 1)]

    def coarse_cells(self, frame: int) -> np.ndarray:
        """Return coarse voxels that a frame sees; none if its depth is damaged."""
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
        """Measure the share of a cloud's points in view, at or before the measured depth, that lie on it (5 %).

        Frames with damaged depth are skipped.
        """
        sample = points[:: max(1, len(points) // 50_000)]
        on = before = 0
        for frame in frames:
            frame = int(frame)
            try:
                depth = load_depth_metres(self._recording, self._calibration, frame, self._farthest)
            except UserError as error:
                self.damaged[frame] = str(error)
                continue
            k = as_intrinsics(self._calibration.depth_of(frame))
            pose, size = self._world[frame], depth.shape
            near, _ = visible_points(sample, pose, k, size, depth, border=2, tolerance=0.05)
            inside, pixels = visible_points(sample, pose, k, size, None, border=2)
            z = (sample[inside] - pose[:3, 3]) @ pose[:3, 2]
            measured = depth[pixels[:, 0], pixels[:, 1]]
            on += len(near)
            before += int(((measured > 0) & (z < 1.05 * measured)).sum())
        return on / max(before, 1)
