"""Writer of a scanned room as processed ScanNet."""

from pathlib import Path

import numpy as np

from xmask3d.rooms.scanned.film import ScannedRoom
from xmask3d.rooms.scanned.recording import record
from xmask3d.rooms.scanned.settings import ScanSettings
from xmask3d.rooms.scanned.truth import NOBODY
from xmask3d.rooms.structure import UNLABELLED
from xmask3d.rooms.writer import FRAME_STEP, Cloud, RoomFiles, SceneWriter, caption


def write_scan(
    room: ScannedRoom,
    out: Path,
    split: str,
    scene: str,
    views: int,
    settings: ScanSettings,
    rng: np.random.Generator,
) -> RoomFiles:
    """Record a room and write its files. Args: views: number of frames that are kept."""
    writer = SceneWriter(out, split, scene)
    scan = record(room, views, settings, rng)
    captions: dict[str, str] = {}
    for index, shot in enumerate(scan.shots):
        stem = str(index * FRAME_STEP)
        writer.add_frame(stem, shot.jpeg, shot.depth, shot.film.label, shot.pose)
        captions[stem] = caption(room, shot.film.instance, rng)
    # Faces have the labels of their instances, so the first face of each instance gives its class.
    renderer = room.renderer
    class_of = np.full(len(room.kinds), UNLABELLED)
    class_of[renderer.face_instance] = renderer.face_label
    labels = np.where(scan.instance == NOBODY, UNLABELLED, class_of[scan.instance])
    cloud = Cloud(scan.points, scan.colors, labels.astype(np.float32), scan.instance)
    return writer.finish(cloud, captions)
