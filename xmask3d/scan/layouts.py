"""Detection of recordings: plain frames, TUM, Redwood / Open3D, Polycam, Record3D, 3RScan, 7-Scenes, 3DMatch."""

from collections.abc import Collection
from pathlib import Path

import numpy as np

from xmask3d.errors import UserError
from xmask3d.scan import formats
from xmask3d.scan.frame_files import TRAJECTORIES, FrameFiles, collect_files, frame_order, recording_of_files, words_of
from xmask3d.scan.phones import find_polycam, find_record3d
from xmask3d.scan.recording import Recording

RESULTS = {"labels.ply", "objects.ply"}  # clouds of a result, beside heat_*.ply and its summary.json
MAX_TIME_GAP = 0.03  # seconds between colour, depth and pose that still count as one moment (TUM)


def find_recording(folder: Path) -> Recording | None:
    """Find the recording in a folder, or None when it holds no posed colour and depth frames.

    Raises:
        UserError: it looks like a recording of a known form but a part of it is missing, with what and where.
    """
    for attempt in (find_record3d, find_polycam, _tum, _plain):
        recording = attempt(folder)
        if recording is not None:
            recording = recording.without_lost_frames()
            recording.cloud = recording.cloud or _cloud_beside(folder, recording.notes)
            return recording
    return None


def _plain(folder: Path) -> Recording | None:
    files = collect_files(folder)
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
    alone = len(files.color.keys() ^ files.depth.keys())
    if alone:
        notes.append(f"{alone} pictures have no partner (colour without depth or the reverse) and are left out")
    names, poses, inverse = _plain_poses(folder, files, both, notes)
    kind = "a folder of colour, depth and pose files"
    colors, depths = [files.color[n] for n in names], [files.depth[n] for n in names]
    recording = recording_of_files(kind, folder, names, colors, depths, poses)
    if inverse:
        recording.conventions = ("world-to-camera", "camera-to-world", *recording.conventions[2:])
    recording.notes += notes
    return recording


def _plain_poses(
    folder: Path, files: FrameFiles, frames: list[str], notes: list[str]
) -> tuple[list[str], np.ndarray, bool]:
    """Find frames with a pose, their poses, and whether file names mark these as world-to-camera."""
    if files.pose:
        names = [frame for frame in frames if frame in files.pose]
        if names:
            if len(names) < len(frames):
                notes.append(f"{len(frames) - len(names)} frames have no pose file and are left out")
            first = files.pose[names[0]]
            inverse = any(word in str(first.relative_to(folder)).lower() for word in ("extrinsic", "world2cam"))
            broken: list[str] = []
            poses = np.stack([_pose_or_nan(files.pose[name], broken) for name in names])
            notes += shortened(broken)
            return names, poses, inverse
    path = _trajectory_file(folder)
    if path is None:
        raise UserError(
            f"{folder}: {len(frames)} colour and depth frames but no poses; put one 4 x 4 text file a frame in pose/, "
            f"or one trajectory file (*.log of Open3D, groundtruth.txt of TUM, traj.txt)"
        )
    keys, poses = formats.read_trajectory(path)
    if len(poses) == len(frames):
        return frames, poses, False
    if keys is None:
        keys = _line_numbers(path, len(poses), files.color.keys() | files.depth.keys())
        notes.append(f"{path.name}: its {len(poses)} lines are taken for the frames {keys[0]:g} to {keys[-1]:g}")
    by_key = {_number_name(key): pose for key, pose in zip(keys, poses, strict=True)}
    names = [frame for frame in frames if _number_name(frame_order(frame)[0]) in by_key]
    if not names:
        raise UserError(f"{path}: {len(poses)} poses for {len(frames)} frames, and their numbers do not match")
    if len(names) < len(frames):
        notes.append(f"{path.name} has poses for {len(names)} of {len(frames)} frames; the others are left out")
    return names, np.stack([by_key[_number_name(frame_order(name)[0])] for name in names]), False


def _line_numbers(path: Path, count: int, names: Collection[str]) -> np.ndarray:
    """Derive frame numbers of a trajectory whose lines have none, from the names of all frames with pictures."""
    numbers = np.sort([frame_order(name)[0] for name in names])
    if len(numbers) == count and np.isfinite(numbers).all():
        return numbers
    if numbers[0] == 0 or not np.isfinite(numbers).all():
        return np.arange(count, dtype=float)
    if numbers[-1] == count:  # no line for the last frame if the first line were frame 0
        return np.arange(count, dtype=float) + 1
    raise UserError(
        f"{path}: {count} poses without frame numbers for pictures {numbers[0]:g} to {numbers[-1]:g}, so it cannot be "
        f"told which belong together; begin every line with the number of its frame"
    )


def shortened(notes: list[str], limit: int = 5) -> list[str]:
    """Return at most `limit` notes, and the number of the others: thousands of frames may have the same fault."""
    return notes if len(notes) <= limit else [*notes[:limit], f"... and {len(notes) - limit} more of these"]


def _number_name(value: float) -> str:
    return f"{value:.6f}"


def _pose_or_nan(path: Path, notes: list[str]) -> np.ndarray:
    try:
        return formats.read_pose(path)
    except UserError as error:
        notes.append(str(error))
        return np.full((4, 4), np.nan)


def _trajectory_file(folder: Path) -> Path | None:
    for base in (folder, *sorted(p for p in folder.iterdir() if p.is_dir()), folder.parent):
        for name in TRAJECTORIES:
            if (base / name).is_file():
                return base / name
        logs = sorted(base.glob("*.log"), key=lambda p: (words_of(p.stem)[:1] != ["trajectory"], p.name))
        for path in logs if base != folder.parent else []:
            try:
                formats.read_trajectory(path)
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
    pose_times, poses = formats.read_trajectory(truth)
    if pose_times is None:
        raise UserError(f"{truth}: poses without times; expected lines of 'time tx ty tz qx qy qz qw'")
    to_depth, depth_gap = _nearest(color_times, depth_times)
    to_pose, pose_gap = _nearest(color_times, pose_times)
    good = np.flatnonzero((depth_gap < MAX_TIME_GAP) & (pose_gap < MAX_TIME_GAP))
    if not len(good):
        raise UserError(f"{folder}: no colour picture has depth and a pose within {MAX_TIME_GAP} s; compare the times")
    names = [Path(colors[i]).stem for i in good]
    kind = "a TUM recording (rgb.txt, depth.txt, groundtruth.txt)"
    recording = recording_of_files(
        kind, folder, names, [folder / colors[i] for i in good], [folder / depths[to_depth[i]] for i in good],
        poses[to_pose[good]],
    )  # fmt: skip
    recording.units = (5000.0, 1000.0, 4000.0)
    if len(good) < len(colors):
        recording.notes.append(f"{len(colors) - len(good)} colour pictures have no depth or pose near in time")
    return recording


def _tum_list(path: Path) -> tuple[np.ndarray, list[str]]:
    rows = [
        line.split()
        for line in path.read_text(encoding="utf-8", errors="replace").splitlines()
        if line.strip() and not line.startswith("#")
    ]
    if not rows:
        raise UserError(f"{path}: names no picture; expected lines of 'time file'")
    try:
        return np.array([float(row[0]) for row in rows]), [row[1] for row in rows]
    except (ValueError, IndexError) as error:
        raise UserError(f"{path}: expected lines of 'time file'") from error


def _nearest(times: np.ndarray, others: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    order = np.argsort(others)
    place = np.searchsorted(others[order], times).clip(1, max(len(others) - 1, 1))
    before, after = order[place - 1], order[np.minimum(place, len(others) - 1)]
    nearest = np.where(np.abs(others[before] - times) <= np.abs(others[after] - times), before, after)
    return nearest, np.abs(others[nearest] - times)


def point_clouds(folder: Path, suffixes: Collection[str]) -> list[Path]:
    """List files of a folder with these suffixes, in order, without those of a result that was written into it."""
    found = [path for path in sorted(folder.iterdir()) if path.suffix.lower() in suffixes]
    if not (folder / "summary.json").is_file():
        return found
    return [path for path in found if path.name not in RESULTS and not path.name.startswith("heat_")]


def _cloud_beside(folder: Path, notes: list[str]) -> Path | None:
    """Find the one point cloud or mesh in the folder; none, with a note, where there are several."""
    found = point_clouds(folder, {".ply", ".pcd"})
    preferred = [path for path in found if path.name.endswith("_vh_clean_2.ply")]
    if len(found) > 1 and not preferred:
        notes.append(f"{len(found)} point clouds beside the frames ({found[0].name}, {found[1].name} ...): none is "
                     f"used; leave one there to get its points")  # fmt: skip
        return None
    return preferred[0] if preferred else found[0] if found else None
