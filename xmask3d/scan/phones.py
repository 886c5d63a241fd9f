"""Recordings exported by phone apps: Polycam's raw data, 3D Scanner App's and Record3D's "EXR + JPG"."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from xmask3d.errors import UserError
from xmask3d.geometry.camera import scale_matrix
from xmask3d.guarded import read_object, reading
from xmask3d.scan import formats
from xmask3d.scan.frame_files import collect_files, recording_of_files
from xmask3d.scan.pairing import frame_order
from xmask3d.scan.posed_frames import OWN, PosedFrame, recording_of_frames
from xmask3d.scan.recording import Recording, camera_to_world
from xmask3d.scan.trajectories import matrix_of, quaternion_poses

Y_UP = "camera-to-world, y up"


def find_polycam(folder: Path) -> Recording | None:
    """Find Polycam's raw data: keyframes/{images, depth, cameras} or their corrected_ variants."""
    base = folder / "keyframes" if (folder / "keyframes").is_dir() else folder
    cameras = next(
        (base / n for n in ("corrected_cameras", "cameras") if formats.list_files(base, f"{n}/*.json")), None
    )
    if cameras is None or not (base / "depth").is_dir():
        return None
    images = base / ("corrected_images" if cameras.name.startswith("corrected") else "images")
    keys = [f"t_{row}{column}" for row in range(3) for column in range(4)]
    frames = []
    for path in sorted(formats.list_files(cameras, "*.json"), key=lambda p: frame_order(p.stem)):
        values = _numbers(path, read_object(path), (*keys, "fx", "fy", "cx", "cy"))
        pose, (fx, fy, cx, cy) = matrix_of(values[:12]), values[12:]
        matrix = np.array([[fx, 0, cx], [0, fy, cy], [0, 0, 1.0]])
        frames.append(PosedFrame(images / f"{path.stem}.jpg", base / "depth" / f"{path.stem}.png", pose, matrix))
    return _phone(recording_of_frames("Polycam raw data", folder, frames, Y_UP))


def find_scanner_app(folder: Path) -> Recording | None:
    """Find 3D Scanner App's "all data": frame_N.jpg, frame_N.json, depth_N.png; only some frames have all three."""
    frames = []
    for path in formats.list_files(folder, "frame_*.json"):
        content = read_object(path)
        if "cameraPoseARFrame" not in content:
            return None
        values = _numbers(path, content, ("cameraPoseARFrame", "intrinsics"))
        if len(values) != 25:
            raise UserError(f"{path}: expected 16 numbers of a pose and 9 of intrinsics, found {len(values)} in all")
        depth = folder / f"depth_{path.stem.removeprefix('frame_')}.png"
        frames.append(PosedFrame(path.with_suffix(".jpg"), depth, matrix_of(values[:16]), values[16:].reshape(3, 3)))
    if not frames:
        return None
    return _phone(recording_of_frames("a 3D Scanner App export", folder, frames, Y_UP))


def _numbers(path: Path, content: dict[str, Any], keys: Sequence[str]) -> np.ndarray:
    """Read the numbers under some keys of a JSON file, one after the other."""
    try:
        return np.concatenate([np.atleast_1d(np.array(content[key], float)).ravel() for key in keys])
    except (KeyError, TypeError, ValueError) as error:
        raise UserError(
            f"{path}: expected numbers under {keys[0]} to {keys[-1]} ({error}); export the scan again"
        ) from error


def find_record3d(folder: Path) -> Recording | None:
    """Find Record3D's "EXR + JPG" export: metadata.json, rgb/N.jpg, depth/N.exr (npy or png if converted)."""
    base = folder / "EXR_RGBD" if (folder / "EXR_RGBD").is_dir() else folder
    path = next((p for p in (base / "metadata.json", folder / "metadata.json", base / "metadata") if p.is_file()), None)
    if path is None or not ((base / "rgb").is_dir() or (base / "rgbd").is_dir()):
        return None
    content = read_object(path)
    if "poses" not in content or "K" not in content:
        return None
    with reading(path, "metadata of Record3D"):
        table = np.array(content["poses"], float)
        poses = quaternion_poses(table[:, 4:7], table[:, :4])
        matrix = np.array(content["K"], float).reshape(3, 3).T
        each = np.array(content.get("perFrameIntrinsicCoeffs") or np.zeros((0, 4)), float)
    if (base / "rgbd").is_dir():
        color = {path.stem: path for path in formats.list_files(base, "rgbd/*.jpg")}
        depth = {path.stem: path for path in formats.list_files(base, "rgbd/*.depth")}
    else:
        files = collect_files(base)
        color, depth = files.color, files.depth
    both = sorted(color.keys() & depth.keys(), key=frame_order)
    names = [name for name in both if frame_order(name)[0] < len(table)]
    if not names:
        raise UserError(f"{base}: Record3D metadata, but no frame with both rgb/ and depth/; export as 'EXR + JPG'")
    rows = [int(frame_order(name)[0]) for name in names]
    recording = recording_of_files("a Record3D export", folder, names, [color[n] for n in names],
                          [depth[n] for n in names], poses[rows])  # fmt: skip
    size = (int(content.get("h", recording.color_size[0])), int(content.get("w", recording.color_size[1])))
    if each.shape == (len(table), 4):
        matrix = np.tile(np.eye(3), (len(names), 1, 1))
        matrix[:, [0, 1, 0, 1], [0, 1, 2, 2]] = each[rows]
    recording.color_matrices = [(OWN, scale_matrix(matrix, size, recording.color_size))]
    recording.depth_matrices = [(OWN, scale_matrix(matrix, size, recording.depth_size))]
    recording.units = (1.0, 1000.0) if (base / "rgbd").is_dir() else recording.units
    recording.conventions = (Y_UP, *(c for c in recording.conventions if c != Y_UP))
    return _phone(recording)


def _phone(recording: Recording) -> Recording:
    """Set the up axis to y, as in ARKit's level world, unless the cameras rotated about another axis."""
    world = camera_to_world(recording.poses, recording.conventions[0])
    right, down = world[:, :3, 0], world[:, :3, 1]
    held = [axis for axis in (0, 2) if (right[:, axis] ** 2).mean() < 0.04 and abs(down[:, axis].mean()) > 0.6]
    swept = np.linalg.norm(right.mean(0)) < 0.8  # cameras that only look in one direction are level about two axes
    recording.up = None if held and swept else "y"
    return recording
