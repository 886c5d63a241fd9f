"""A small valid file of every format, and the reader that meets it in the program."""

import io
import json
import struct
import zlib
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors.torch import save_file

from tests.helpers.raw_scannet import sens_frame, sens_header
from xmask3d.checkpoints.checkpoint import (
    Checkpoint,
    load_weights,
    random_state,
    read_checkpoint,
    save_checkpoint,
)
from xmask3d.checkpoints.validations import read_validations, record_validation
from xmask3d.config import find_configuration, load_config, save_config
from xmask3d.data.download.fetch import read_records, record
from xmask3d.data.files import read_picture, read_points, read_pose, write_points
from xmask3d.data.prepare.captions import _write as write_captions
from xmask3d.data.prepare.sens import SensFile
from xmask3d.data.scannet import read_captions
from xmask3d.engine.feature_cache import _read as read_encodings
from xmask3d.engine.feature_cache import _write as write_encodings
from xmask3d.engine.results import SceneResult
from xmask3d.files import atomic_write
from xmask3d.inference.labeller import BRANCHES
from xmask3d.metrics.compare import _read as read_results
from xmask3d.scan import formats, trajectories
from xmask3d.scan.clouds import read_cloud
from xmask3d.seal import UNSEALED, read_sealed_json, sealed, sealed_json
from xmask3d.segment.folder import read_summary
from xmask3d.segment.labelling import SavedState
from xmask3d.segment.saved_features import PointFeatures
from xmask3d.segment.saved_labels import read_labels
from xmask3d.visualize.cloud import write_ply


class Format(NamedTuple):
    """A file, its reader, and whether the file is of this program's own, so that no damage to it may pass."""

    path: Path
    read: Callable[[], Any]
    sealed: bool


def _rng() -> np.random.Generator:
    return np.random.default_rng(7)


def _weights() -> dict[str, torch.Tensor]:
    rng = _rng()
    return {f"layer{i}.weight": torch.from_numpy(rng.normal(size=(20, 8)).astype(np.float32)) for i in range(6)}


def checkpoint(folder: Path) -> Format:
    path, weights = folder / "step-00000007.pt", _weights()
    groups = [{"lr": 0.1, "params": [0]}]
    optimizer = {"state": {0: {"step": torch.tensor(1.0)}}, "param_groups": groups}
    save_checkpoint(Checkpoint(7, 10, weights, optimizer, {"seed": 1}, rng=[random_state()]), path)
    return Format(path, lambda: read_checkpoint(path), True)


def checkpoint_without_digest(folder: Path) -> Format:
    made = checkpoint(folder)
    made.path.with_name(made.path.name + ".sha256").unlink()
    return made


def model(folder: Path) -> Format:
    path = folder / "model.safetensors"
    about = {"benchmark": "scannet20/B15N4"} | UNSEALED
    atomic_write(path, sealed(lambda part: save_file(_weights(), part, about)))
    return Format(path, lambda: load_weights(path), True)


def features(folder: Path) -> Format:
    path, rng = folder / "features.safetensors", _rng()
    half, row = rng.normal(size=(20, 8)).astype(np.float16), np.arange(50, dtype=np.int32) % 20
    points, colors = rng.normal(size=(50, 3)).astype(np.float32), np.zeros((50, 3), np.uint8)
    PointFeatures(points, colors, row, half, half, half[:, 0], row[:20], {"scan": "room"}).save(path)
    return Format(path, lambda: PointFeatures.load(path), True)


def encodings(folder: Path) -> Format:
    path = folder / "encodings.safetensors"
    write_encodings(path, list(_weights().values()))
    return Format(path, lambda: read_encodings(path), True)


def captions(folder: Path) -> Format:
    path = folder / "captions.json"
    write_captions(path, {f"scene{i}": {"0": "a chair", "20": "a table by the wall"} for i in range(5)})
    return Format(path, lambda: read_captions(path), True)


def scene(folder: Path) -> Format:
    path, points = folder / "scene.pth", _rng().normal(size=(60, 3))
    write_points(path, points, np.clip(points, -1, 1), np.arange(60) % 20)
    return Format(path, lambda: read_points(path), True)


def scene_result(folder: Path) -> Format:
    path, counts = folder / "scene.npz", np.arange(20).reshape(4, 5)
    labels = np.arange(60, dtype=np.int16) % 4
    SceneResult(dict.fromkeys(BRANCHES, labels), dict.fromkeys(BRANCHES, counts), counts[:2, :3],
                np.full(60, 0.5, np.float16), 3, 2).save(path)  # fmt: skip
    return Format(path, lambda: SceneResult.load(path), True)


def saved_state(folder: Path) -> Format:
    path = folder / ".unfinished.npz"
    state = SavedState(path, "scan", 3)
    state.save(lambda: {"sums": np.arange(30.0), "counts": np.arange(3)}, now=True)
    return Format(path, state.load, True)


def validations(folder: Path) -> Format:
    record_validation(folder, 10, {"hiou": 0.5})
    return Format(folder / "validations.json", lambda: read_validations(folder) or None, True)


def summary(folder: Path) -> Format:
    said = {"words": ["bed", "sofa"], "names": ["bed", "sofa"], "scan": "room", "counts": [1, 2]}
    atomic_write(folder / "summary.json", sealed_json(said))
    return Format(folder / "summary.json", lambda: read_summary(folder), True)


def best_record(folder: Path) -> Format:
    atomic_write(folder / "best.json", sealed_json({"score": 0.5, "from": "step-00000004.pt"}))
    return Format(folder / "best.json", lambda: read_sealed_json(folder / "best.json"), True)


def results(folder: Path) -> Format:
    content = {"benchmark": "scannet20/B15N4", "protocol": "default", "scenes": ["a"], "scores": {"fused": {"hiou": 1}}}
    atomic_write(folder / "results.json", sealed_json(content, indent=1))
    return Format(folder / "results.json", lambda: read_results(folder / "results.json"), True)


def downloads(folder: Path) -> Format:
    record(folder, "a.tar.gz", url="https://example.org/a", size=7, sha256="0" * 64)
    return Format(folder / "downloads.json", lambda: read_records(folder), True)


def saved_configuration(folder: Path) -> Format:
    path = folder / "config.yaml"
    save_config(load_config(find_configuration(Path("config/rooms/B15N4.yaml"))), path)
    return Format(path, lambda: load_config(path), True)


def labels(folder: Path) -> Format:
    summary(folder)
    points, ids = _rng().normal(size=(50, 3)), np.arange(50) % 2
    write_ply(folder / "labels.ply", points, np.zeros((50, 3), np.uint8), ids, np.full(50, 0.5))
    return Format(folder / "labels.ply", lambda: read_labels(folder), True)


def configuration(folder: Path) -> Format:
    path, source = folder / "rooms.yaml", find_configuration(Path("config/rooms/B15N4.yaml"))
    path.write_text(source.read_text().replace("include: ", f"include: {source.parent.resolve()}/"))
    return Format(path, lambda: load_config(path), False)


def _picture(folder: Path, name: str, dtype: type, depth: bool = True, **options: Any) -> Format:
    rows = np.add.outer(np.arange(24), np.arange(32))
    Image.fromarray((rows * 40).astype(dtype)).save(folder / name, **options)
    return Format(folder / name, lambda: (formats.read_depth if depth else formats.read_color)(folder / name), False)


def depth_png(folder: Path) -> Format:
    return _picture(folder, "0.png", np.uint16)


def depth_pgm(folder: Path) -> Format:
    return _picture(folder, "0.pgm", np.uint16)


def depth_tiff(folder: Path) -> Format:
    return _picture(folder, "0.tiff", np.float32)


def color_jpeg(folder: Path) -> Format:
    return _picture(folder, "0.jpg", np.uint8, depth=False)


def label_png(folder: Path) -> Format:
    made = _picture(folder, "label.png", np.uint8)
    return made._replace(read=lambda: read_picture(made.path))


def depth_npy(folder: Path) -> Format:
    np.save(folder / "0.npy", np.full((24, 32), 1.5, np.float32))
    return Format(folder / "0.npy", lambda: formats.read_depth(folder / "0.npy"), False)


def depth_exr(folder: Path) -> Format:
    import OpenEXR

    header = {"compression": OpenEXR.ZIP_COMPRESSION, "type": OpenEXR.scanlineimage}
    OpenEXR.File(header, {"Z": np.full((24, 32), 1.5, np.float32)}).write(str(folder / "0.exr"))
    return Format(folder / "0.exr", lambda: formats.read_depth(folder / "0.exr"), False)


def pose(folder: Path) -> Format:
    np.savetxt(folder / "0.txt", np.eye(4))
    file = folder / "0.txt"
    return Format(file, lambda: (trajectories.read_pose(file), read_pose(file)), False)


def trajectory(folder: Path) -> Format:
    rows = np.tile([0, 1, 2, 3, 0, 0, 0, 1.0], (10, 1))
    np.savetxt(folder / "groundtruth.txt", rows, fmt="%.6f")
    return Format(folder / "groundtruth.txt", lambda: trajectories.read_trajectory(folder / "groundtruth.txt"), False)


def intrinsics(folder: Path) -> Format:
    path = folder / "camera.json"
    path.write_text(json.dumps({"width": 640, "height": 480, "fx": 525.0, "fy": 525.0, "cx": 319.5, "cy": 239.5}))
    return Format(path, lambda: formats.read_intrinsics(path), False)


def sens(folder: Path) -> Format:
    path, picture = folder / "room.sens", io.BytesIO()
    Image.fromarray(np.zeros((48, 64, 3), np.uint8)).save(picture, "JPEG")
    head = bytearray(sens_header(3))
    place = head.index(struct.pack("<f", 1000.0)) - 16
    head[place : place + 16] = struct.pack("<4I", 64, 48, 64, 48)
    depth = zlib.compress(np.full((48, 64), 1500, "<u2").tobytes())
    path.write_bytes(bytes(head) + 3 * sens_frame(np.eye(4), picture.getvalue(), depth))

    def read() -> list:
        with SensFile(path) as file:
            frames = [file.frame_at(place) for place in file.index()]
            return [(frame.pose, file.decode_color(frame), file.decode_depth(frame)) for frame in frames]

    return Format(path, read, False)


def _cloud(path: Path, content: bytes) -> Format:
    path.write_bytes(content)
    return Format(path, lambda: read_cloud(path), False)


def pcd_ascii(folder: Path) -> Format:
    rows = "".join(f"{i * 0.1:.2f} {i * 0.2:.2f} 0.5\n" for i in range(30))
    return _cloud(folder / "a.pcd", _pcd("ascii") + rows.encode())


def pcd_binary(folder: Path) -> Format:
    return _cloud(folder / "b.pcd", _pcd("binary") + _rng().normal(size=(30, 3)).astype("<f4").tobytes())


def pcd_compressed(folder: Path) -> Format:
    flat = _rng().normal(size=(3, 30)).astype("<f4").tobytes()
    packed = b"".join(bytes([len(flat[i : i + 32]) - 1]) + flat[i : i + 32] for i in range(0, len(flat), 32))
    head = struct.pack("<II", len(packed), len(flat))
    return _cloud(folder / "c.pcd", _pcd("binary_compressed") + head + packed)


def _pcd(form: str) -> bytes:
    return (
        "# .PCD v0.7\nVERSION 0.7\nFIELDS x y z\nSIZE 4 4 4\nTYPE F F F\nCOUNT 1 1 1\nWIDTH 30\nHEIGHT 1\n"
        f"VIEWPOINT 0 0 0 1 0 0 0\nPOINTS 30\nDATA {form}\n"
    ).encode()


def xyz(folder: Path) -> Format:
    return _cloud(folder / "a.xyz", b"".join(b"%d %d 1 %d 20 30\n" % (i, i % 5, i) for i in range(30)))


def _mesh(folder: Path, kind: str) -> Format:
    import trimesh

    mesh = trimesh.creation.box((3, 3, 2))
    mesh.visual.vertex_colors = np.full((8, 4), 200, np.uint8)
    content = mesh.export(file_type=kind)
    return _cloud(folder / f"a.{kind}", content if isinstance(content, bytes) else content.encode())


def _las(path: Path) -> Format:
    laspy = pytest.importorskip("laspy")
    las, rng = laspy.create(point_format=2, file_version="1.2"), _rng()
    las.x, las.y, las.z = rng.uniform(0, 5, (3, 200))
    las.red, las.green, las.blue = rng.integers(0, 65536, (3, 200))
    las.write(str(path))
    return Format(path, lambda: read_cloud(path), False)


def las(folder: Path) -> Format:
    return _las(folder / "a.las")


def laz(folder: Path) -> Format:
    pytest.importorskip("lazrs")
    return _las(folder / "a.laz")


def obj(folder: Path) -> Format:
    return _mesh(folder, "obj")


def stl(folder: Path) -> Format:
    return _mesh(folder, "stl")


def off(folder: Path) -> Format:
    return _mesh(folder, "off")


def glb(folder: Path) -> Format:
    return _mesh(folder, "glb")


def ply(folder: Path) -> Format:
    return _mesh(folder, "ply")


OWN = (
    checkpoint, checkpoint_without_digest, model, features, encodings, captions, scene, scene_result, saved_state,
    validations, best_record, summary, labels, results, downloads, saved_configuration,
)  # fmt: skip
FOREIGN = (
    configuration, depth_png, depth_pgm, depth_tiff, color_jpeg, label_png, depth_npy, depth_exr,
    pose, trajectory, intrinsics, sens, pcd_ascii, pcd_binary, pcd_compressed, xyz, las, laz, obj, stl, off, glb, ply,
)  # fmt: skip
