"""Posed pictures of reconstruction programs with depth maps: nerfstudio's transforms.json and COLMAP models."""

import struct
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from xmask3d.errors import UserError
from xmask3d.guarded import read_object
from xmask3d.scan import formats
from xmask3d.scan.distortion import Lens, lens_of_colmap
from xmask3d.scan.posed_frames import PosedFrame, partner_depths, recording_of_frames
from xmask3d.scan.recording import Recording
from xmask3d.scan.trajectories import quaternion_poses

# COLMAP's camera models in the order of their ids: number of parameters before the distortion, and of all parameters.
MODELS = {
    "SIMPLE_PINHOLE": (3, 3), "PINHOLE": (4, 4), "SIMPLE_RADIAL": (3, 4), "RADIAL": (3, 5), "OPENCV": (4, 8),
    "OPENCV_FISHEYE": (4, 8), "FULL_OPENCV": (4, 12), "FOV": (4, 5), "SIMPLE_RADIAL_FISHEYE": (3, 4),
    "RADIAL_FISHEYE": (3, 5), "THIN_PRISM_FISHEYE": (4, 12),
}  # fmt: skip
FLAT = ("PINHOLE", "OPENCV", "RADIAL", "FISHEYE", "PERSPECTIVE")
"""Parts of names of camera models in transforms.json whose pictures are flat; others are panoramas and maps."""
GEOMETRY = (".ply", ".obj", ".glb", ".pcd", ".las", ".laz", ".stl", ".off", ".e57")
BEST = ("mesh_aligned_0.05.ply", "_vh_clean_2.ply", "fused.ply", "meshed-poisson.ply", "sparse_pc.ply")
"""Endings of the names of clouds and meshes, the most suitable first."""
BENT = 0.02  # larger distortion parameters move pixels noticeably
UNKNOWN = "not known"  # stands for a lens whose distortion cannot be removed here
# matrix 3 x 3, (height, width), lens
Camera = tuple[np.ndarray, tuple[int, int], Lens | str | None]
Posed = tuple[str, int, np.ndarray]  # file name, id of the camera, 4 x 4 world to camera


def find_nerfstudio(folder: Path) -> Recording | None:
    """Find transforms.json of nerfstudio or Instant-NGP: camera-to-world with y up, depth in millimetres."""
    path = folder / "transforms.json"
    if not path.is_file():
        return None
    content = read_object(path)
    listed = content.get("frames")
    if not isinstance(listed, list) or not listed:
        raise UserError(f"{path}: lists no frames; expected 'frames' with file_path and transform_matrix each")
    try:
        frames = _listed_frames(folder, content, listed)
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        raise UserError(
            f"{path}: not understood ({type(error).__name__}: {error}); expected fl_x, fl_y, cx, cy, w, h and 'frames' "
            f"with file_path and a transform_matrix of 4 x 4 each"
        ) from error
    geometry, kind = None, "nerfstudio's transforms.json"
    if not any(frame.depth for frame in frames):
        named = folder / str(content.get("ply_file_path", "")).replace("\\", "/")
        geometry = named if named.is_file() else geometry_beside(folder)
        if geometry is not None and not any(frame.color.is_file() for frame in frames):
            return None  # use the cloud alone
    recording = recording_of_frames(kind, folder, frames, "camera-to-world, y up", geometry)
    recording.unitless = recording.rendered
    scale = content.get("depth_unit_scale_factor")
    if isinstance(scale, (int, float)) and 0 < scale < np.inf:
        recording.units = (float(f"{1 / scale:.6g}"), *recording.units)
    return recording


def _listed_frames(folder: Path, content: dict[str, Any], listed: list[Any]) -> list[PosedFrame]:
    partners: dict[Path, Path] | None = None
    frames = []
    for entry in listed:
        values = {**content, **entry}
        color = folder / values["file_path"].replace("\\", "/")
        color = color if color.suffix else color.with_suffix(".png")
        if "depth_file_path" in values:
            depth: Path | None = folder / values["depth_file_path"].replace("\\", "/")
        else:
            partners = partner_depths(folder) if partners is None else partners
            depth = partners.get(color)
        pose = np.array(values["transform_matrix"], float)
        if pose.shape not in ((3, 4), (4, 4)):
            raise ValueError(f"a transform_matrix of the shape {pose.shape}")
        pose = np.vstack([pose[:3], [0, 0, 0, 1.0]])
        width, height = (float(values[key]) for key in ("w", "h"))
        if "fl_x" in values:
            fx, fy = float(values["fl_x"]), float(values.get("fl_y", values["fl_x"]))
        else:
            fx = fy = width / 2 / np.tan(float(values["camera_angle_x"]) / 2)
        cx, cy = float(values.get("cx", width / 2)), float(values.get("cy", height / 2))
        matrix = np.array([[fx, 0, cx], [0, fy, cy], [0, 0, 1.0]])
        frames.append(PosedFrame(color, depth, pose, matrix, (int(height), int(width)), _lens(values)))
    return frames


def _lens(values: dict[str, Any]) -> Lens | None:
    """Return the distortion stated for a frame of transforms.json, or None."""
    k1, k2, k3, k4, p1, p2 = (float(values.get(key, 0)) for key in ("k1", "k2", "k3", "k4", "p1", "p2"))
    model = str(values.get("camera_model", "")).upper()
    if not np.isfinite((k1, k2, k3, k4, p1, p2)).all() or (model and not any(kind in model for kind in FLAT)):
        raise ValueError(f"a camera of the model {model or 'pinhole'} with k1 {k1:g}")
    if not any((k1, k2, k3, k4, p1, p2)):
        return None
    if "FISHEYE" in model or values.get("is_fisheye"):
        return Lens((k1, k2, k3, k4), fisheye=True)
    return Lens((k1, k2, k3), (p1, p2))


def find_colmap(folder: Path) -> Recording | None:
    """Find a COLMAP model, text or binary, with depth maps (named like the pictures, or in stereo/depth_maps)."""
    places = [
        (base, model)
        for base in (folder / place for place in ("dense/0", "dense", "", "colmap", "dslr", "iphone"))
        for model in (base / "sparse" / "0", base / "sparse", base, base / "colmap")
        if any(
            (model / f"images.{kind}").is_file() and (model / f"cameras.{kind}").is_file() for kind in ("bin", "txt")
        )
    ]
    for base, model in places:
        cameras, images = _model(model)
        frames = _colmap_frames(base, folder, cameras, images)
        if any(frame.depth for frame in frames):
            kind = "a COLMAP model with depth maps"
            recording = recording_of_frames(kind, folder, frames, "camera-to-world")
            recording.units = (1.0, *(u for u in recording.units if u != 1.0)) if _own(frames) else recording.units
            if any(cameras[number][2] == UNKNOWN for _, number, _ in images):
                recording.notes.append("warning: the distortion of the lens is of a model that is not undone here; "
                                       "undistort the pictures first (colmap image_undistorter)")  # fmt: skip
            recording.unitless = _own(frames)
            return recording
    for base, model in places:
        geometry = next(iter(dense_clouds(base.parent) + dense_clouds(folder)), None) or geometry_beside(folder)
        if geometry is None:
            break
        cameras, images = _model(model)
        frames = _colmap_frames(base, folder, cameras, images)
        if any(frame.color.is_file() for frame in frames):
            kind = "a COLMAP model"
            recording = recording_of_frames(kind, folder, frames, "camera-to-world", geometry)
            recording.unitless = True
            return recording
    if not places or dense_clouds(folder):
        return None
    raise UserError(
        f"{places[0][1]}: a COLMAP model without depth maps; put them, named as the pictures, into depth/, or run "
        f"colmap patch_match_stereo (stereo/depth_maps) or stereo_fusion (dense/fused.ply)"
    )


def dense_clouds(folder: Path) -> list[Path]:
    """List clouds that COLMAP fused from pictures."""
    return [p for pattern in ("dense/fused.ply", "dense/*/fused.ply") for p in formats.list_files(folder, pattern)]


def geometry_beside(folder: Path) -> Path | None:
    """Find the only cloud or mesh in a folder or just below; if there are several, the one best named."""
    below = [path for path in sorted(folder.iterdir()) if path.is_dir() and path.name[:1] not in "._"]
    for places in ([folder], below):
        found = [path for place in places for path in formats.point_clouds(place, GEOMETRY)]
        best = [path for name in BEST for path in found if path.name.endswith(name)]
        if best or len(found) == 1:
            return (best or found)[0]
    return None


def _own(frames: list[PosedFrame]) -> bool:
    return any(frame.depth is not None and frame.depth.suffix == ".bin" for frame in frames)


def _colmap_frames(base: Path, folder: Path, cameras: dict[int, Camera], images: list[Posed]) -> list[PosedFrame]:
    partners = partner_depths(folder)
    by_name = {path.name: path for path in partners}
    maps = base / "stereo" / "depth_maps"
    frames = []
    for name, number, to_camera in images:
        near = [place / name for place in (base / "images", folder / "images", base / "resized_images", folder, base)]
        color = next((path for path in near if path.is_file()), by_name.get(Path(name).name, near[0]))
        own = [maps / f"{name}.{kind}.bin" for kind in ("geometric", "photometric")]
        depth = next((path for path in own if path.is_file()), partners.get(color))
        matrix, size, lens = cameras[number]
        lens = lens if isinstance(lens, Lens) else None
        frames.append(PosedFrame(color, depth, np.linalg.inv(to_camera), matrix, size, lens))
    return frames


def _model(folder: Path) -> tuple[dict[int, Camera], list[Posed]]:
    """Read cameras and posed pictures of a model, from text if there are both forms."""
    text = (folder / "images.txt").is_file() and (folder / "cameras.txt").is_file()
    readers: tuple[tuple[str, Callable], ...] = (
        (("cameras.txt", _text_cameras), ("images.txt", _text_images))
        if text
        else (("cameras.bin", _binary_cameras), ("images.bin", _binary_images))
    )
    parts = []
    for name, read in readers:
        try:
            parts.append(read(folder / name))
        except (OSError, ValueError, KeyError, IndexError, struct.error, np.linalg.LinAlgError) as error:
            raise UserError(
                f"{folder / name}: damaged, or no COLMAP model ({error}); export the model again"
            ) from error
    cameras, images = parts
    lost = [name for name, number, _ in images if number not in cameras]
    if lost or not images:
        raise UserError(f"{folder}: {f'no camera of {lost[0]}' if lost else 'no pictures'} in this COLMAP model; "
                        f"export it again")  # fmt: skip
    return cameras, images


def _camera(model: str, width: int, height: int, values: list[float]) -> Camera:
    pinhole, count = MODELS[model]
    if len(values) != count:
        raise ValueError(f"{model} with {len(values)} parameters")
    fx, fy, cx, cy = values[:4] if pinhole == 4 else (values[0], *values[:3])
    matrix = np.array([[fx, 0, cx], [0, fy, cy], [0, 0, 1.0]])
    try:
        return matrix, (height, width), lens_of_colmap(model, values[pinhole:])
    except KeyError:
        return matrix, (height, width), UNKNOWN if max(map(abs, values[pinhole:])) > BENT else None


def _to_camera(turn: list[float], place: list[float]) -> np.ndarray:
    w, x, y, z = turn
    return quaternion_poses(np.array([place], float), np.array([[x, y, z, w]], float))[0]


def _text_cameras(path: Path) -> dict[int, Camera]:
    rows = [line.split() for line in formats.text_of(path).splitlines() if line.strip() and line[0] != "#"]
    return {int(r[0]): _camera(r[1], int(r[2]), int(r[3]), [float(value) for value in r[4:]]) for r in rows}


def _text_images(path: Path) -> list[Posed]:
    """Read posed pictures; the line after each lists its points, and may be empty or missing."""
    images = []
    for line in formats.text_of(path).splitlines():
        row = line.split(maxsplit=9)
        if len(row) == 10 and not row[0].startswith("#") and not formats.NUMBER.fullmatch(row[9].split()[0]):
            values = [float(value) for value in row[1:8]]
            images.append((row[9].strip(), int(row[8]), _to_camera(values[:4], values[4:])))
    return images


def _binary_cameras(path: Path) -> dict[int, Camera]:
    data = path.read_bytes()
    (count,), at, names = struct.unpack_from("<Q", data), 8, list(MODELS)
    cameras = {}
    for _ in range(count):
        number, model, width, height = struct.unpack_from("<IiQQ", data, at)
        if not 0 <= model < len(names):
            raise ValueError(f"a camera of model {model}")
        values = struct.unpack_from(f"<{MODELS[names[model]][1]}d", data, at + 24)
        cameras[number] = _camera(names[model], width, height, list(values))
        at += 24 + 8 * len(values)
    return cameras


def _binary_images(path: Path) -> list[Posed]:
    data = path.read_bytes()
    (count,), at = struct.unpack_from("<Q", data), 8
    images = []
    for _ in range(count):
        _, *values, number = struct.unpack_from("<I7dI", data, at)
        end = data.index(b"\0", at + 64)
        images.append((data[at + 64 : end].decode("utf-8", "replace"), number, _to_camera(values[:4], values[4:])))
        (points,) = struct.unpack_from("<Q", data, end + 1)
        at = end + 9 + 24 * points
    return images
