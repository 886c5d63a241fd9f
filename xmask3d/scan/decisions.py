"""Decisions about a recording: the user's options, its scale, and the cloud on which its frames are labelled."""

import hashlib
from dataclasses import replace
from typing import Any

import numpy as np

from xmask3d.geometry.camera import scale_matrix
from xmask3d.scan.agreement import GOOD, Verdict, check_recording
from xmask3d.scan.cloud_raw import single_color
from xmask3d.scan.clouds import Cloud, read_cloud
from xmask3d.scan.frames import Frames
from xmask3d.scan.fuse import fuse
from xmask3d.scan.intrinsics import GIVEN
from xmask3d.scan.options import ScanOptions
from xmask3d.scan.recording import Calibration, Recording
from xmask3d.scan.size import scale_by_height


def find_scale(
    recording: Recording, calibration: Calibration, world: np.ndarray, options: ScanOptions
) -> tuple[float, str]:
    """Return the metres per unit of a recording without a scale, as given or from the height of the scene."""
    if options.scale is not None:
        return options.scale, f"{options.scale:g} metres a unit, as given"
    frames = Frames(recording, calibration, world, np.inf)
    chosen = np.unique(np.linspace(0, len(recording) - 1, min(len(recording), 24)).astype(int))
    seen = [frames.for_fusion(int(frame))[1].reshape(-1, 3)[::7] for frame in chosen]
    points = np.concatenate(seen)
    return scale_by_height(points[np.isfinite(points).all(1)], world[:, :3, :3])


def fingerprint(calibration: Calibration, world: np.ndarray, farthest: float) -> str:
    """Return a key that identifies the reading of the frames."""
    digest = hashlib.blake2b(repr((calibration.units_per_metre, calibration.convention, farthest)).encode())
    for matrix in (calibration.color, calibration.depth, world):
        digest.update(np.ascontiguousarray(matrix, np.float64).tobytes())
    return digest.hexdigest()


def with_options(recording: Recording, options: ScanOptions) -> Recording:
    """Return the same recording with candidates replaced by the user's options."""
    changes: dict[str, Any] = {}
    if options.depth_scale is not None:
        changes["units"] = (options.depth_scale,)
    if options.poses is not None:
        changes["conventions"] = (options.poses,)
    if options.intrinsics is not None:
        fx, fy, cx, cy = options.intrinsics
        matrix = np.array([[fx, 0, cx], [0, fy, cy], [0, 0, 1.0]])
        changes["color_matrices"] = [(GIVEN, matrix)]
        changes["depth_matrices"] = [(GIVEN, scale_matrix(matrix, recording.color_size, recording.depth_size))]
    return replace(recording, **changes) if changes else recording


def warn_of_options(recording: Recording, chosen: Recording, verdict: Verdict) -> list[str]:
    """Warn if frames disagree under the user's options, but agree under the files' own values."""
    if chosen is recording or not verdict.agreement < GOOD:
        return []
    found = check_recording(recording)
    if not found.agreement > verdict.agreement + 0.15:
        return []
    k = found.calibration.color_of(0)
    return [
        f"warning: as given {verdict.agreement:.0%} of the points agree, as found without your options "
        f"{found.agreement:.0%}: poses {found.calibration.convention}, {found.calibration.units_per_metre:g} units per "
        f"metre, intrinsics {k[0, 0]:.0f} {k[1, 1]:.0f} {k[0, 2]:.0f} {k[1, 2]:.0f}"
    ]


def cloud_of(
    recording: Recording,
    frames: Frames,
    candidates: np.ndarray,
    origin: np.ndarray,
    options: ScanOptions,
    lines: list[str],
    unitless: float | None,
) -> Cloud:
    """Return the cloud beside the frames if they see it, else one fused from them, relative to their origin."""
    if recording.cloud is not None:
        own = 1.0 if recording.rendered else None  # its unit is that of the poses
        cloud = read_cloud(recording.cloud, options.units_per_metre or unitless or own, origin)
        if recording.rendered:
            lines += [f"points of {recording.cloud.name}", *cloud.notes]
            return cloud
        agreement = frames.agreement_with(cloud.points, candidates[:: max(1, len(candidates) // 12)])
        if agreement > 0.5:
            lines.append(f"points of {recording.cloud.name}, which {agreement:.0%} of its seen points' depths confirm")
            lines += [*cloud.notes, *options.unused("frames beside a cloud that fits them", "voxel_size")]
            return cloud
        lines.append(f"{recording.cloud.name} does not fit the frames ({agreement:.0%} agree); fused a cloud from them")
    fused = fuse((int(frame) for frame in candidates), frames.for_fusion, options.voxel_size)
    lines.append(f"fused {len(candidates)} depth maps into {len(fused.points):,} points {fused.voxel_size:g} m apart")
    colors = np.rint((fused.colors + 1) * 127.5).astype(np.uint8)
    if single_color(colors) is not None:
        lines.append("warning: the pictures have one colour only; the networks will see shapes only")
    return Cloud(fused.points, colors, origin)
