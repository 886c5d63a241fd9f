"""Recordings from the frame lists of apps and reconstruction programs, with files, pose and intrinsics per frame."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from xmask3d.errors import UserError
from xmask3d.geometry.camera import scale_matrix
from xmask3d.scan.distortion import Lens, undistorted
from xmask3d.scan.frame_files import collect_files, recording_of_files
from xmask3d.scan.recording import Recording

OWN = "the export's own"


@dataclass(frozen=True)
class PosedFrame:
    """One listed frame.

    Attributes:
        pose: 4 x 4 as written.
        matrix: 3 x 3 pinhole matrix of a picture of `size`.
        size: (height, width); None for the size of the colour pictures.
        lens: distortion of colour and depth, to be removed; None for a pinhole.
    """

    color: Path
    depth: Path | None
    pose: np.ndarray
    matrix: np.ndarray
    size: tuple[int, int] | None = None
    lens: Lens | None = None


def recording_of_frames(
    kind: str, folder: Path, frames: Sequence[PosedFrame], convention: str, geometry: Path | None = None
) -> Recording:
    """Make a recording of the frames with both colour and depth.

    Args:
        convention: key of `CONVENTIONS` that the format states; the others remain candidates.
        geometry: cloud or mesh from which missing depth is rendered.

    Raises:
        UserError: no frame has both.
    """
    first: dict[Path, PosedFrame] = {}
    for frame in frames:
        first.setdefault(frame.color, frame)
    repeated, frames = len(frames) - len(first), list(first.values())
    whole = [f for f in frames if f.color.is_file() and f.depth is not None and f.depth.is_file()]
    rendered = not whole and geometry is not None
    if rendered:
        whole = [f for f in frames if f.color.is_file()]
    if not whole:
        lost = next((f.color for f in frames if not f.color.is_file()), None)
        reason = f"{lost} is missing" if lost else "there is no depth beside the pictures"
        raise UserError(
            f"{folder}: {kind} with {len(frames)} poses, but no frame has colour and depth ({reason}); export depth "
            f"maps, named as the pictures, into depth/, or give a point cloud made from the pictures"
        )
    for frame in whole:
        focal, size = (frame.matrix[0, 0], frame.matrix[1, 1]), frame.size or (1, 1)
        if not (np.isfinite(frame.matrix).all() and min(*focal, *size) > 0):
            raise UserError(
                f"{folder}: {kind} has no camera for {frame.color.name}: focal lengths {focal[0]:g} and {focal[1]:g} "
                f"at {size[1]} x {size[0]} pixels; export it again"
            )
    names, colors = [frame.color.stem for frame in whole], [frame.color for frame in whole]
    names = names if len(set(names)) == len(names) else [str(i) for i in range(len(names))]
    depths = [] if rendered else [frame.depth for frame in whole if frame.depth is not None]
    recording = recording_of_files(kind, folder, names, colors, depths, np.stack([f.pose for f in whole]))
    recording.cloud = geometry
    lenses = [frame.lens for frame in whole]
    for role in ("color", "depth"):
        size = getattr(recording, f"{role}_size")
        own = [scale_matrix(frame.matrix, frame.size or recording.color_size, size) for frame in whole]
        matrix = own[0] if all((m == own[0]).all() for m in own) else np.stack(own)
        setattr(recording, f"{role}_matrices", [(OWN, matrix)])
        if any(lenses) and not (rendered and role == "depth"):
            load = undistorted(getattr(recording, f"load_{role}"), lenses, own)
            setattr(recording, f"load_{role}", load)
    recording.conventions = (convention, *(c for c in recording.conventions if c != convention))
    recording.notes = [note for note in recording.notes if "intrinsics" not in note]
    if any(lenses):
        recording.notes.append(f"the lens's distortion is undone in pictures{'' if rendered else ' and depth maps'}")
    if repeated:
        recording.notes.append(f"warning: {repeated} frames are listed again; the first of each is used")
    if len(whole) < len(frames):
        recording.notes.append(f"{len(frames) - len(whole)} listed frames have no colour or no depth and are left out")
    return recording


def partner_depths(folder: Path) -> dict[Path, Path]:
    """Find the depth map of each colour picture of a folder, by their names."""
    files = collect_files(folder)
    return {files.color[name]: files.depth[name] for name in files.color.keys() & files.depth.keys()}
