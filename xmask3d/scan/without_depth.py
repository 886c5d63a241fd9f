"""Posed pictures without depth beside a cloud or mesh of the same place, from which their depth is rendered."""

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np

from xmask3d.errors import UserError
from xmask3d.scan.agreement import color_contrast
from xmask3d.scan.clouds import read_cloud
from xmask3d.scan.recording import CONVENTIONS, Recording, camera_to_world
from xmask3d.scan.render import DepthRenderer, PointRenderer, read_faces, renderer_of_faces

PROBED = 12  # frames for the choice of the pose convention, in runs of three
MARGIN = 0.05  # factor by which another convention must be better than the stated one
RIGHT = 0.35  # with a smaller contrast no other convention is tried
UNRELATED = 0.5  # with a larger contrast pictures and geometry hardly match
KEPT = 700  # depth maps kept in memory


def with_rendered_depth(recording: Recording) -> Recording:
    """Return the recording with depth rendered from its cloud, under the convention in which pictures agree.

    Raises:
        UserError: the cloud cannot be read.
    """
    assert recording.cloud is not None
    origin = np.median(camera_to_world(recording.poses, recording.conventions[0])[:, :3, 3], axis=0)
    renderer, words = _renderer(recording.cloud, origin)
    found: dict[str, float] = {}
    runs = np.linspace(0, max(0, len(recording) - 3), PROBED // 3).round().astype(int)
    frames = np.unique((runs[:, None] + np.arange(3)).clip(0, len(recording) - 1))
    for convention in recording.conventions if len(recording) > 1 else recording.conventions[:1]:
        found[convention] = color_contrast(_rendered(recording, renderer, origin, convention).keep(frames))
        if found[convention] < RIGHT:
            break
    first = recording.conventions[0]
    best = min(found, key=lambda convention: found[convention] - MARGIN * (convention == first))
    rendered = _rendered(recording, renderer, origin, best)
    rendered.notes = [*recording.notes, f"depth of every picture is rendered from {words} of {recording.cloud.name}"]
    if best != first:
        rendered.notes.append(f"poses are {CONVENTIONS[best]}: as {first} pictures match it worse "
                              f"({found[best]:.2f} and {found[first]:.2f}, 0 is equal)")  # fmt: skip
    if found[best] > UNRELATED:
        rendered.notes.append(f"warning: the pictures hardly match {recording.cloud.name} where their poses put them; "
                              f"are both of one export, and in one frame?")  # fmt: skip
    return rendered


def _renderer(path: Path, origin: np.ndarray) -> tuple[DepthRenderer, str]:
    """Return a renderer of a file relative to an origin, in the file's unit, and a description of it."""
    try:
        mesh = read_faces(path)
    except Exception as error:  # trimesh's loaders raise all kinds of errors on damaged files
        raise UserError(f"{path}: cannot be read as a mesh ({' '.join(str(error).split())[:100]})") from error
    if mesh is None:
        return PointRenderer(read_cloud(path, 1.0, origin).points), "the points"
    return renderer_of_faces(mesh[0] - origin, mesh[1]), "the faces"


def _rendered(recording: Recording, renderer: DepthRenderer, origin: np.ndarray, convention: str) -> Recording:
    world = camera_to_world(recording.poses, convention).copy()
    world[:, :3, 3] -= origin
    matrices, size = recording.depth_matrices[0][1], recording.depth_size
    matrix_of: Callable[[int], np.ndarray] = lambda i: matrices if matrices.ndim == 2 else matrices[i]  # noqa: E731
    kept: dict[int, np.ndarray] = {}

    def load(index: int) -> np.ndarray:
        index = int(index)
        if index not in kept:
            while len(kept) >= KEPT:
                kept.pop(next(iter(kept)))
            kept[index] = renderer.depth(world[index], matrix_of(index), size)
        return kept[index]

    return replace(recording, load_depth=load, conventions=(convention,), units=(1.0,))
