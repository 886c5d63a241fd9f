"""Recordings exported by phone apps: Polycam's raw data and Record3D's "EXR + JPG"."""

from pathlib import Path

import numpy as np

from xmask3d.errors import UserError
from xmask3d.geometry.camera import scale_matrix
from xmask3d.scan import formats
from xmask3d.scan.frame_files import collect_files, frame_order, recording_of_files
from xmask3d.scan.recording import Recording


def find_polycam(folder: Path) -> Recording | None:
    """Find Polycam's raw data: keyframes/{images, depth, cameras} or their corrected_ variants."""
    base = folder / "keyframes" if (folder / "keyframes").is_dir() else folder
    cameras = next((base / n for n in ("corrected_cameras", "cameras") if any((base / n).glob("*.json"))), None)
    if cameras is None or not (base / "depth").is_dir():
        return None
    images = base / ("corrected_images" if cameras.name.startswith("corrected") else "images")
    names, colors, depths, poses, matrices = [], [], [], [], []
    for path in sorted(cameras.glob("*.json")):
        color, depth = images / f"{path.stem}.jpg", base / "depth" / f"{path.stem}.png"
        content = formats.read_json(path)
        keys = [f"t_{row}{column}" for row in range(3) for column in range(4)]
        if color.is_file() and depth.is_file() and all(key in content for key in (*keys, "fx", "fy", "cx", "cy")):
            names.append(path.stem)
            colors.append(color)
            depths.append(depth)
            poses.append(np.vstack([np.array([content[key] for key in keys]).reshape(3, 4), [0, 0, 0, 1.0]]))
            fx, fy, cx, cy = (content[key] for key in ("fx", "fy", "cx", "cy"))
            matrices.append([[fx, 0, cx], [0, fy, cy], [0, 0, 1.0]])
    if not names:
        raise UserError(f"{base}: Polycam cameras, but none with its picture in {images.name}/ and its map in depth/")
    recording = recording_of_files("Polycam raw data", folder, names, colors, depths, np.array(poses))
    return _phone(recording, np.array(matrices), recording.color_size)


def find_record3d(folder: Path) -> Recording | None:
    """Find Record3D's "EXR + JPG" export: metadata.json, rgb/N.jpg, depth/N.exr (npy or png where converted)."""
    base = folder / "EXR_RGBD" if (folder / "EXR_RGBD").is_dir() else folder
    path = next((p for p in (base / "metadata.json", folder / "metadata.json", base / "metadata") if p.is_file()), None)
    if path is None or not (base / "rgb").is_dir():
        return None
    content = formats.read_json(path)
    if "poses" not in content or "K" not in content:
        return None
    table = np.array(content["poses"], float)
    poses = formats.quaternion_poses(table[:, 4:7], table[:, :4])
    files = collect_files(base)
    both = sorted(files.color.keys() & files.depth.keys(), key=frame_order)
    names = [name for name in both if frame_order(name)[0] < len(table)]
    if not names:
        raise UserError(f"{base}: Record3D metadata, but no frame with both rgb/ and depth/; export as 'EXR + JPG'")
    poses = poses[[int(name) for name in names]]
    recording = recording_of_files("a Record3D export", folder, names, [files.color[n] for n in names],
                          [files.depth[n] for n in names], poses)  # fmt: skip
    matrix = np.array(content["K"], float).reshape(3, 3).T
    size = (int(content.get("h", recording.color_size[0])), int(content.get("w", recording.color_size[1])))
    return _phone(recording, matrix, size)


def _phone(recording: Recording, matrix: np.ndarray, size: tuple[int, int]) -> Recording:
    """Set what phone exports share: ARKit's camera axes, and one matrix for colour and (smaller) depth pictures."""
    recording.color_matrices = [("the export's own", scale_matrix(matrix, size, recording.color_size))]
    recording.depth_matrices = [("the export's own", scale_matrix(matrix, size, recording.depth_size))]
    y_up = "camera-to-world, y up"
    recording.conventions = (y_up, *(c for c in recording.conventions if c != y_up))
    recording.up = "y"  # ARKit's world is level
    return recording
