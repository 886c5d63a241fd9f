"""Detection of a folder's recording: apps, reconstruction programs, TUM, and folders of colour, depth and poses."""

import re
from collections.abc import Collection
from pathlib import Path

import numpy as np

from xmask3d.errors import UserError
from xmask3d.guarded import reading
from xmask3d.scan import formats
from xmask3d.scan.frame_files import TRAJECTORIES, FrameFiles, collect_files, recording_of_files, words_of
from xmask3d.scan.intrinsics import frame_intrinsics
from xmask3d.scan.pairing import frame_order
from xmask3d.scan.phones import find_polycam, find_record3d, find_scanner_app
from xmask3d.scan.reconstructions import find_colmap, find_nerfstudio, geometry_beside
from xmask3d.scan.recording import Recording
from xmask3d.scan.trajectories import read_pose, read_trajectory, seconds

MAX_TIME_GAP = 0.03  # largest difference in time, in seconds, of colour, depth and pose of a frame (TUM)


def find_recording(folder: Path) -> Recording | None:
    """Find the recording in a folder, or None when it holds no posed colour and depth frames.

    Raises:
        UserError: it is a recording of a known form, but a part is missing; the message says which one and where.
    """
    for attempt in (find_record3d, find_polycam, find_scanner_app, find_nerfstudio, find_colmap, _tum, _plain):
        with reading(folder, "a recording"):
            recording = attempt(folder)
        if recording is not None:
            recording = recording.without_lost_frames()
            recording.cloud = recording.cloud or _cloud_beside(folder, recording.notes)
            return recording
    return None


def _plain(folder: Path) -> Recording | None:
    files = collect_files(folder)
    if files.color and not files.depth and files.lossy:
        raise UserError(
            f"{files.lossy[0].parent}: depth pictures are {files.lossy[0].suffix} files, whose compression changes "
            f"values and keeps 8 bits of them: that is no measurement; export depth as 16-bit PNG, TIFF, EXR or .npy"
        )
    videos = [p for p in formats.list_files(folder, "*") if p.suffix.lower() in {".mp4", ".mov", ".m4v"}]
    if files.depth and not files.color and videos:
        raise UserError(
            f"{videos[0]}: the colour pictures are a video; write them as files, for example with "
            f"ffmpeg -i {videos[0].name} -start_number 0 -qscale:v 2 rgb/%06d.jpg (make rgb/ first)"
        )
    geometry = geometry_beside(folder) if files.color and not files.depth else None
    if geometry is not None and not files.unclear and (files.pose or _trajectory_file(folder)):
        return _posed(folder, files, sorted(files.color, key=frame_order), list(files.notes), geometry)
    if not files.color or not files.depth:
        return None
    notes = list(files.notes)
    if files.unclear:
        raise UserError(
            f"{folder}: {files.unclear[0]}; keep one file of each kind a frame in a folder, named by the frame's number"
        )
    if len(files.repeated) == 2:
        raise UserError(f"{folder}: holds several recordings with the same frame numbers; name one of its sub-folders")
    both = sorted(files.color.keys() & files.depth.keys(), key=frame_order)
    if not both:
        raise UserError(
            f"{folder}: {len(files.color)} colour and {len(files.depth)} depth pictures, but no frame number in common "
            f"({next(iter(files.color.values())).name}, {next(iter(files.depth.values())).name})"
        )
    alone = sorted(files.color.keys() ^ files.depth.keys(), key=frame_order)
    if alone:
        first = files.color.get(alone[0]) or files.depth[alone[0]]
        notes.append(f"{len(alone)} pictures have no partner (colour without depth or the reverse), as {first.name}, "
                     f"and are left out")  # fmt: skip
    return _posed(folder, files, both, notes)


def _posed(
    folder: Path, files: FrameFiles, frames: list[str], notes: list[str], geometry: Path | None = None
) -> Recording:
    """Make a recording of the frames with a pose.

    Args:
        geometry: cloud or mesh beside the frames from which depth is to be rendered.
    """
    kind, names, poses, inverse = _plain_poses(folder, files, frames, notes)
    kind = kind if geometry is None else f"posed pictures beside {geometry.name}"
    depths = [files.depth[name] for name in names] if geometry is None else []
    recording = recording_of_files(kind, folder, names, [files.color[name] for name in names], depths, poses)
    if inverse:
        recording.conventions = ("world-to-camera", "camera-to-world", *recording.conventions[2:])
    if files.calibration.keys() >= set(names):
        calibrations = [files.calibration[name] for name in names]
        color, depth = frame_intrinsics(calibrations, recording.color_size, recording.depth_size)
        words = f"{calibrations[0].parent.name}, one file a frame"
        recording.color_matrices.insert(0, (words, color))
        recording.depth_matrices.insert(0, (words, depth))
    recording.cloud = geometry
    recording.notes += notes
    return recording


def _plain_poses(
    folder: Path, files: FrameFiles, frames: list[str], notes: list[str]
) -> tuple[str, list[str], np.ndarray, bool]:
    """Find a description, the frames with a pose, their poses, and True if these are known to be world-to-camera."""
    kind = "a folder of colour, depth and pose files"
    names = [frame for frame in frames if frame in files.pose]
    if names:
        if len(names) < len(frames):
            notes.append(f"{len(frames) - len(names)} frames have no pose file and are left out")
        first = files.pose[names[0]]
        inverse = any(word in str(first.relative_to(folder)).lower() for word in ("extrinsic", "world2cam"))
        broken: list[str] = []
        poses = np.stack([_pose_or_nan(files.pose[name], broken) for name in names])
        if len(broken) == len(names):
            raise UserError(broken[0])
        notes += shortened(broken)
        return kind, names, poses, inverse
    path = _trajectory_file(folder)
    if path is None and len(frames) == 1:
        notes.append("one frame without a pose: its camera is the world")
        return "one colour and depth frame", frames, np.eye(4)[None], False
    if path is None:
        raise UserError(
            f"{folder}: {len(frames)} colour and depth frames but no poses; put one 4 x 4 text file a frame in pose/, "
            f"or one trajectory file (*.log of Open3D, groundtruth.txt of TUM, traj.txt)"
        )
    trajectory = read_trajectory(path)
    poses = trajectory.poses
    keys = trajectory.keys
    rows = max((_rows_of(frames, column) for column in keys), key=lambda r: (r >= 0).sum(), default=None)
    if len(poses) == len(frames) and (rows is None or (rows < 0).any()):
        rows = np.arange(len(poses))
    elif rows is None:
        numbers = _line_numbers(path, len(poses), files.color.keys() | files.depth.keys())
        notes.append(f"{path.name}: its {len(poses)} lines are taken for the frames {numbers[0]:g} to {numbers[-1]:g}")
        rows = _rows_of(frames, numbers)
    if not (rows >= 0).any():
        raise UserError(f"{path}: {len(poses)} poses for {len(frames)} frames, and their numbers do not match")
    if (rows < 0).any():
        notes.append(f"{path.name} has poses for {(rows >= 0).sum()} of {len(frames)} frames; the others are left out")
    names = [frame for frame, row in zip(frames, rows, strict=True) if row >= 0]
    return f"{kind} ({path.name})", names, poses[rows[rows >= 0]], trajectory.inverse


def _rows_of(frames: list[str], keys: np.ndarray) -> np.ndarray:
    """Find the row of each frame's number in a column, -1 if missing; times may differ by `MAX_TIME_GAP`."""
    numbers = np.array([frame_order(frame)[0] for frame in frames])
    row_of = {_number_name(key): row for row, key in enumerate(keys)}
    rows = np.array([row_of.get(_number_name(number), -1) for number in numbers])
    if (rows >= 0).any() or not np.isfinite(numbers).all() or (numbers % 1 == 0).all():
        return rows
    nearest, gap = _nearest(seconds(numbers), seconds(keys))
    return np.where(gap < MAX_TIME_GAP, nearest, -1)


def _line_numbers(path: Path, count: int, names: Collection[str]) -> np.ndarray:
    """Derive frame numbers for a trajectory without numbers, from the names of all frames with pictures."""
    numbers = np.sort([frame_order(name)[0] for name in names])
    if len(numbers) == count and np.isfinite(numbers).all():
        return numbers
    if numbers[0] == 0 or not np.isfinite(numbers).all():
        return np.arange(count, dtype=float)
    if numbers[-1] == count:  # if the first line were frame 0, the last frame would have no line
        return np.arange(count, dtype=float) + 1
    raise UserError(
        f"{path}: {count} poses without frame numbers for pictures {numbers[0]:g} to {numbers[-1]:g}, so they "
        f"cannot be matched; begin every line with the number of its frame"
    )


def shortened(notes: list[str], limit: int = 5) -> list[str]:
    """Return at most `limit` notes and the number of the others, since thousands of frames may have the same fault."""
    return notes if len(notes) <= limit else [*notes[:limit], f"... and {len(notes) - limit} more of these"]


def _number_name(value: float) -> str:
    return f"{value:.6f}"


def _pose_or_nan(path: Path, notes: list[str]) -> np.ndarray:
    try:
        return read_pose(path)
    except UserError as error:
        notes.append(str(error))
        return np.full((4, 4), np.nan)


def _trajectory_file(folder: Path) -> Path | None:
    for base in (folder, *sorted(p for p in folder.iterdir() if p.is_dir()), folder.parent):
        for name in TRAJECTORIES:
            if (base / name).is_file():
                return base / name
        logs = [path for pattern in ("*.traj", "*.log") for path in formats.list_files(base, pattern)]
        logs.sort(key=lambda p: words_of(p.stem)[:1] != ["trajectory"])
        for path in logs if base != folder.parent else []:
            try:
                read_trajectory(path)
            except UserError:
                continue
            return path
    return None


def _tum(folder: Path) -> Recording | None:
    if not all((folder / name).is_file() for name in ("rgb.txt", "depth.txt")):
        return None
    truth = next((folder / n for n in TRAJECTORIES if (folder / n).is_file()), None)
    if truth is None:
        raise UserError(f"{folder}: rgb.txt and depth.txt of a TUM recording, but no groundtruth.txt with the poses")
    (color_times, colors), (depth_times, depths) = (_tum_list(folder / name) for name in ("rgb.txt", "depth.txt"))
    trajectory = read_trajectory(truth)
    if not trajectory.keys:
        raise UserError(f"{truth}: poses without times; expected lines of 'time tx ty tz qx qy qz qw'")
    to_depth, depth_gap = _nearest(color_times, depth_times)
    to_pose, pose_gap = _nearest(color_times, seconds(trajectory.keys[0]))
    good = np.flatnonzero((depth_gap < MAX_TIME_GAP) & (pose_gap < MAX_TIME_GAP))
    if not len(good):
        raise UserError(f"{folder}: no colour picture has depth and a pose within {MAX_TIME_GAP} s; compare the times")
    names = [Path(colors[i]).stem for i in good]
    kind = "a TUM recording (rgb.txt, depth.txt, groundtruth.txt)"
    recording = recording_of_files(
        kind, folder, names, [folder / colors[i] for i in good], [folder / depths[to_depth[i]] for i in good],
        trajectory.poses[to_pose[good]],
    )  # fmt: skip
    recording.units = (5000.0, 1000.0, 4000.0)
    if len(good) < len(colors):
        recording.notes.append(f"{len(colors) - len(good)} colour pictures have no depth or pose near in time")
    return recording


def _tum_list(path: Path) -> tuple[np.ndarray, list[str]]:
    """Read times in seconds and files of a list, which may have titles above it and backslashes of Windows."""
    lines = [line.strip() for line in formats.text_of(path).splitlines()]
    rows = [re.split(r"[\s,;]+", line, maxsplit=1) for line in lines if line and not line.startswith("#")]
    if rows and not formats.NUMBER.match(rows[0][0]):
        rows = rows[1:]
    if not rows:
        raise UserError(f"{path}: names no picture; expected lines of 'time file'")
    try:
        times = seconds(np.array([float(row[0]) for row in rows]))
        return times, [row[1].strip("'\"").replace("\\", "/") for row in rows]
    except (ValueError, IndexError) as error:
        raise UserError(f"{path}: expected lines of 'time file'") from error


def _nearest(times: np.ndarray, others: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    order = np.argsort(others)
    place = np.searchsorted(others[order], times).clip(1, max(len(others) - 1, 1))
    before, after = order[place - 1], order[np.minimum(place, len(others) - 1)]
    nearest = np.where(np.abs(others[before] - times) <= np.abs(others[after] - times), before, after)
    return nearest, np.abs(others[nearest] - times)


def _cloud_beside(folder: Path, notes: list[str]) -> Path | None:
    """Find the only point cloud or mesh in the folder; none, with a note, if there are several."""
    found = formats.point_clouds(folder, {".ply", ".pcd"})
    preferred = [path for path in found if path.name.endswith("_vh_clean_2.ply")]
    if len(found) > 1 and not preferred:
        notes.append(f"{len(found)} point clouds beside the frames ({found[0].name}, {found[1].name} ...): none is "
                     f"used; leave one there to get its points")  # fmt: skip
        return None
    return preferred[0] if preferred else found[0] if found else None
