"""Recordings in ScanNet's .sens files: posed colour and depth frames in one file, decoded one at a time."""

from pathlib import Path

import numpy as np

from xmask3d.data.prepare.sens import SensFile
from xmask3d.errors import UserError
from xmask3d.scan.formats import NO_DEPTH
from xmask3d.scan.recording import Recording


def open_sens(path: Path) -> Recording:
    """Index a .sens file; pictures are decoded on demand, so a file of any length fits into memory.

    The file stays open for as long as the recording is used.

    Raises:
        UserError: the file is damaged, of an unknown version, or has no complete frame.
    """
    source = SensFile(path)
    header, places = source.header, source.index()
    if not places:
        raise UserError(f"{path}: holds no complete frame")

    def load_color(index: int) -> np.ndarray:
        return source.decode_color(source.frame_at(places[index]))

    def load_depth(index: int) -> np.ndarray:
        depth = source.decode_depth(source.frame_at(places[index]))
        return np.where(depth == NO_DEPTH, 0, depth).astype(np.float32)

    recording = Recording(
        kind="raw ScanNet recording (.sens)",
        path=path,
        names=[str(place.number) for place in places],
        load_color=load_color,
        load_depth=load_depth,
        poses=np.stack([place.pose for place in places]),
        color_size=header.color_size,
        depth_size=header.depth_size,
        color_matrices=[("the file's own", header.color_intrinsics[:3, :3])],
        depth_matrices=[("the file's own", header.depth_intrinsics[:3, :3])],
        units=(header.depth_unit,),
    )
    if len(places) < header.num_frames:
        recording.notes.append(f"the file ends early: {len(places)} of {header.num_frames} frames are complete")
    mesh = path.parent / f"{path.stem}_vh_clean_2.ply"
    recording.cloud = mesh if mesh.is_file() else None
    return recording.without_lost_frames()
