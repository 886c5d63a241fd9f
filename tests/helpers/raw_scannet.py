"""Writes a box room as a raw ScanNet scene: .sens, meshes, annotations, label pictures, category table."""

import io
import json
import struct
import zipfile
import zlib
from pathlib import Path

import numpy as np
from PIL import Image

from tests.helpers.scenes import CLASSES, BoxRoom
from xmask3d.geometry.camera import SCANNET_DEPTH_INTRINSICS, Intrinsics
from xmask3d.geometry.ply import write_elements

FULL_SIZE = (480, 640)


def write_table(path: Path) -> None:
    """`scannetv2-labels.combined.tsv` with the classes of the box rooms."""
    lines = ["id\traw_category\tcategory\tcount\tnyu40id"]
    lines += [f"{raw}\t{name}\t{name}\t1\t{nyu}" for name, (_, nyu, raw) in CLASSES.items() if raw]
    path.write_text("\n".join(lines) + "\n")


def matrix_of(camera: Intrinsics) -> np.ndarray:
    """4 x 4 intrinsic matrix."""
    matrix = np.eye(4)
    matrix[0, 0], matrix[1, 1], matrix[0, 2], matrix[1, 2] = camera.fx, camera.fy, camera.cx, camera.cy
    return matrix


def sens_header(frames: int, version: int = 4, color_codec: int = 2, depth_codec: int = 1) -> bytes:
    """Header of a recording, as the format's description has it."""
    name = b"StructureSensor"
    parts = [struct.pack("<IQ", version, len(name)), name]
    for matrix in (matrix_of(SCANNET_DEPTH_INTRINSICS), np.eye(4)) * 2:
        parts.append(matrix.astype("<f4").tobytes())
    parts.append(struct.pack("<2i", color_codec, depth_codec))
    parts.append(struct.pack("<4I", FULL_SIZE[1], FULL_SIZE[0], FULL_SIZE[1], FULL_SIZE[0]))
    parts.append(struct.pack("<fQ", 1000.0, frames))
    return b"".join(parts)


def sens_frame(pose: np.ndarray, color: bytes, depth: bytes) -> bytes:
    """One frame of a recording."""
    sizes = struct.pack("<4Q", 11, 12, len(color), len(depth))
    return pose.astype("<f4").tobytes() + sizes + color + depth


def write_raw_scene(raw: Path, scene: str, room: BoxRoom, frames: int = 45, every: int = 20, lost: int = -1) -> Path:
    """Write `raw/scans/<scene>/...`; only every `every`-th frame has content, frame `lost` has no valid pose."""
    folder = raw / "scans" / scene
    folder.mkdir(parents=True)
    _write_meshes(folder, scene, room)
    labels = {}
    with open(folder / f"{scene}.sens", "wb") as stream:
        stream.write(sens_header(frames))
        for number in range(frames):
            pose, color, depth = np.eye(4), b"skipped", b"too"
            if number % every == 0:
                pose = room.pose(2 * np.pi * number / frames + 0.3)
                image, distance, kind = room.render(pose, SCANNET_DEPTH_INTRINSICS, FULL_SIZE)
                color, depth = _jpeg(image), zlib.compress(np.round(distance * 1000).astype("<u2").tobytes())
                raw_ids = np.array([CLASSES[name][2] for name in room.surface_names])[kind]
                labels[number] = raw_ids.astype(np.uint16)
            if number == lost:
                pose = np.full((4, 4), -np.inf)
            stream.write(sens_frame(pose, color, depth))
    with zipfile.ZipFile(folder / f"{scene}_2d-label-filt.zip", "w") as archive:
        for number, ids in labels.items():
            buffer = io.BytesIO()
            Image.fromarray(ids).save(buffer, "PNG")
            archive.writestr(f"label-filt/{number}.png", buffer.getvalue())
    return folder


def _jpeg(image: np.ndarray) -> bytes:
    buffer = io.BytesIO()
    Image.fromarray(image).save(buffer, "JPEG", quality=95)
    return buffer.getvalue()


def _write_meshes(folder: Path, scene: str, room: BoxRoom) -> None:
    kinds = [("x", "f4"), ("y", "f4"), ("z", "f4"), ("red", "u1"), ("green", "u1"), ("blue", "u1"), ("alpha", "u1")]
    vertices = np.zeros(len(room.points), np.dtype(kinds))
    for i, axis in enumerate("xyz"):
        vertices[axis] = room.points[:, i]
    for i, channel in enumerate(("red", "green", "blue")):
        vertices[channel] = np.round((room.colors[:, i] + 1) * 127.5)
    faces = np.zeros(4, np.dtype([("vertex_indices", "i4", (3,))]))
    write_elements(folder / f"{scene}_vh_clean_2.ply", {"vertex": vertices, "face": faces})
    labelled = np.zeros(len(vertices), np.dtype([*kinds, ("label", "u2")]))
    for name, _ in kinds:
        labelled[name] = vertices[name]
    nyu_of_file = {file: nyu for file, nyu, _ in CLASSES.values()}
    labelled["label"] = [nyu_of_file[label] for label in room.labels]
    write_elements(folder / f"{scene}_vh_clean_2.labels.ply", {"vertex": labelled, "face": faces})
    _write_annotations(folder, scene, room)


def _write_annotations(folder: Path, scene: str, room: BoxRoom) -> None:
    """Two segments a class, so that groups have more than one."""
    raw_ids = np.unique(room.raw_labels)
    name_of_raw = {raw: name for name, (_, _, raw) in CLASSES.items()}
    segments = np.searchsorted(raw_ids, room.raw_labels) * 2 + (np.arange(len(room.points)) % 2)
    groups = [
        {"objectId": i, "segments": [2 * i, 2 * i + 1], "label": name_of_raw[int(raw)]} for i, raw in enumerate(raw_ids)
    ]
    groups.append({"objectId": 99, "segments": [9999], "label": "no such category"})
    (folder / f"{scene}.aggregation.json").write_text(json.dumps({"sceneId": scene, "segGroups": groups}))
    content = {"sceneId": scene, "segIndices": segments.tolist()}
    (folder / f"{scene}_vh_clean_2.0.010000.segs.json").write_text(json.dumps(content))
