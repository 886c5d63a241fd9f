"""One scene of a release, labelled and with posed frames, and how it is written in the layout that is read."""

from dataclasses import dataclass
from functools import partial
from pathlib import Path

import numpy as np
from PIL import Image
from scipy.spatial import cKDTree

from xmask3d.data.files import write_points
from xmask3d.data.measurements import checked_camera, checked_points
from xmask3d.data.scene import View
from xmask3d.errors import UserError
from xmask3d.files import atomic_write
from xmask3d.scan.frames import Frames
from xmask3d.scan.posed_frames import PosedFrame, recording_of_frames
from xmask3d.scan.recording import Calibration, camera_to_world
from xmask3d.scan.views import lift

FARTHEST = 65.0  # metres; more does not fit a depth picture in millimetres
NEAR = 0.1  # metres from a pixel's point to the point that lends it its label


@dataclass
class RawScene:
    """Scene as a release has it.

    Attributes:
        points: n x 3 metres, z up.
        colors: n x 3 uint8.
        labels: n int64 label ids of the data set's class list, 0 where there is none.
        frames: posed frames.
        convention: key of `CONVENTIONS` of the frames' poses.
        units: steps of a depth picture in a metre.
    """

    points: np.ndarray
    colors: np.ndarray
    labels: np.ndarray
    frames: list[PosedFrame]
    convention: str = "camera-to-world"
    units: float = 1000.0


def label_vertices(path: Path, faces: np.ndarray, ids: np.ndarray, count: int) -> np.ndarray:
    """Give each of `count` vertices the label id of a face that it belongs to, a labelled one if there is any.

    Args:
        path: file of the mesh, for messages.
        faces: rows of the element `face` of a PLY file.
        ids: one label id a face, 0 for none.
    """
    column = next((name for name in ("vertex_indices", "vertex_index") if name in (faces.dtype.names or ())), None)
    if column is None:
        raise UserError(f"{path}: its faces have no vertex_indices, or differ in their number of corners")
    corners = np.asarray(faces[column])
    if corners.size and not (corners.min() >= 0 and corners.max() < count):
        raise UserError(f"{path}: damaged; a face names a vertex that is not among its {count}")
    labels = np.zeros(count, np.int64)
    named = ids > 0
    labels[corners[named]] = ids[named, None]
    return labels


def write_scene(scene: RawScene, out: Path, dataset: str, split: str, name: str, step: int) -> list[str]:
    """Write a scene as `<dataset>_3d/<split>/<name>.pth`, last, and its frames below `<dataset>_2d/<name>/`.

    Frames stand upright, tall ones are cut in parts, each has its own intrinsics, and their label pictures take the
    label of the nearest point of the scene.

    Args:
        step: every how many frames one is written.

    Returns:
        Notes on frames that were left out.

    Raises:
        UserError: damaged measurements, or no frame that can be used.
    """
    points = checked_points(np.asarray(scene.points, np.float32), name)
    if not len(points) or not scene.frames:
        raise UserError(f"{name}: {'no posed frames' if len(points) else 'no points'}; is the release complete there?")
    recording = recording_of_frames(name, scene.frames[0].color.parent, scene.frames, scene.convention)
    recording = recording.without_lost_frames()
    recording = recording.keep(np.arange(0, len(recording), step))
    calibration = Calibration(
        recording.color_matrices[0][1], recording.depth_matrices[0][1], scene.units, scene.convention
    )
    world = camera_to_world(recording.poses, scene.convention)
    frames = Frames(recording, calibration, world, FARTHEST)
    frames.turn(np.eye(3), name)
    nearest, folder = cKDTree(points), out / f"{dataset}_2d" / name
    notes, written = list(recording.notes), 0
    for frame in range(len(recording)):
        try:
            for view_name in frames.view_names(frame):
                view = frames.view(view_name)
                checked_camera(view.intrinsics, view.depth.shape, f"{name}, frame {view_name}")
                _write_view(view, folder, view_name.replace("#", "-"), nearest, scene.labels)
            written += 1
        except UserError as error:
            notes.append(f"{error}; the frame is left out")
    if not written:
        raise UserError(f"{name}: none of its {len(recording)} frames can be used ({notes[-1]})")
    write_points(out / f"{dataset}_3d" / split / f"{name}.pth", points, scene.colors / 127.5 - 1, scene.labels)
    return notes


def _write_view(view: View, folder: Path, stem: str, nearest: cKDTree, labels: np.ndarray) -> None:
    camera = view.intrinsics
    matrix = np.array([[camera.fx, 0, camera.cx], [0, camera.fy, camera.cy], [0, 0, 1]])
    seen = lift(view.depth, matrix, view.pose)
    known = view.depth > 0
    distance, index = nearest.query(seen[known], distance_upper_bound=NEAR)
    ids = np.zeros(view.depth.shape, np.uint16)
    ids[known] = np.where(np.isfinite(distance), labels[np.minimum(index, len(labels) - 1)], 0)
    millimetres = np.round(view.depth * 1000).astype(np.uint16)
    color = partial(Image.fromarray(view.image).save, quality=95)
    atomic_write(folder / "color" / f"{stem}.jpg", color, sync=False)
    for kind, picture in (("depth", millimetres), ("label", ids)):
        atomic_write(folder / kind / f"{stem}.png", Image.fromarray(picture).save, sync=False)
    for kind, table in (("pose", view.pose), ("intrinsics", matrix)):
        atomic_write(folder / kind / f"{stem}.txt", partial(np.savetxt, X=table, fmt="%.9g"), sync=False)
