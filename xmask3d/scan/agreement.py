"""Agreement of a recording's poses, intrinsics and depth unit with its depth maps, and choice of the best reading.

Pixels of one frame are lifted with its depth, moved by the poses and projected into another frame. Under the right
reading their distance equals that frame's depth, except where something occludes them.
"""

import itertools
from dataclasses import dataclass, replace

import numpy as np

from xmask3d.errors import UserError
from xmask3d.geometry.camera import scale_matrix
from xmask3d.scan.intrinsics import ASSUMED, GIVEN
from xmask3d.scan.recording import CONVENTIONS, Calibration, Recording, camera_to_world, resample

GROUPS = 12  # number of places along the recording
SPREAD = (0, 1, 3, 6)  # number of frames at each place, in steps of at most 5
GRID = (120, 160)  # size to which depth maps are reduced
SAMPLES = 300  # pixels lifted per frame
TOLERANCE = 0.03  # allowed difference between two frames, as a share of the depth
GOOD = 0.6  # smallest agreement at which a reading needs no remark
MARGIN = 0.04  # factor by which a less likely reading must be better to be chosen
FOCAL_FACTORS = np.geomspace(0.45, 2.2, 21)


@dataclass
class Verdict:
    """Result of the check.

    Attributes:
        calibration: the chosen reading.
        agreement: share of points that both frames of a pair measured and that agree within 3 % of the distance.
        overlap: share of lifted points that fall into the other frame.
        lines: findings, one sentence each; warnings begin with "warning:".
    """

    calibration: Calibration
    agreement: float
    overlap: float
    lines: list[str]


@dataclass
class _Probe:
    """Frames read for the check: depth as written on GRID (m x h x w), poses as written, grey pictures, pairs."""

    index: np.ndarray
    depth: np.ndarray
    grey: np.ndarray
    poses: np.ndarray
    pixels: list[np.ndarray]
    pairs: list[tuple[int, int]]


@dataclass(frozen=True)
class _Score:
    reach: float  # agreeing points over all lifted ones, by which candidates are compared
    agreement: float  # agreeing points over those that both frames measured
    overlap: float
    # grey difference of agreeing points over that of unrelated ones: 0 for equal pictures, 1 for unrelated ones
    contrast: float


def check_recording(recording: Recording) -> Verdict:
    """Choose the reading of a recording under which its frames agree best, and report how well they agree.

    Raises:
        UserError: there is no depth at all.
    """
    probe = _read_probe(recording)
    units = _plausible_units(recording, probe)
    first = _calibration(recording, 0, units[0], recording.conventions[0])
    if not probe.pairs:
        lines = ["only one frame: poses and intrinsics cannot be checked"]
        lines += _readings(recording, first, recording.depth_matrices[0][0])
        if len(recording.units) > 1:
            lines.append("the depth unit is not checked; if sizes are wrong, give it with --depth-scale")
        return Verdict(first, float("nan"), float("nan"), lines)
    initial = best_score = _score(probe, first, recording)
    best, best_words, best_value = first, recording.depth_matrices[0][0], initial.reach
    for (n, (words, _)), (u, unit), (c, convention) in itertools.product(
        enumerate(recording.depth_matrices), enumerate(units), enumerate(recording.conventions)
    ):
        candidate = _calibration(recording, n, unit, convention)
        score = _score(probe, candidate, recording)
        value = score.reach - MARGIN * (n > 0) - MARGIN / 2 * (u > 0) - MARGIN / 2 * (c > 0)
        if value > best_value:
            best, best_score, best_words, best_value = candidate, score, words, value
    lines = _describe(recording, first, best, best_words, initial, best_score)
    if best_words.startswith(ASSUMED) and not recording.depth_matrices[0][0].startswith(ASSUMED):
        lines.append(_wrong_focal(first, best, initial, best_score))
    if best_score.agreement < GOOD and best_words != GIVEN:
        best, best_score = _try_focals(probe, recording, best, best_score, lines)
    return Verdict(best, best_score.agreement, best_score.overlap, lines + _remarks(best_score))


def color_contrast(recording: Recording) -> float:
    """Measure how much colours of a place differ between frames under the likeliest reading: 0 equal, 1 unrelated."""
    try:
        probe = _read_probe(recording)
    except UserError:  # no frame has any depth
        return 1.0
    calibration = _calibration(recording, 0, recording.units[0], recording.conventions[0])
    score = _score(probe, calibration, recording)
    return score.contrast or 1.0  # 0 if hardly anything agrees


def _calibration(recording: Recording, number: int, unit: float, convention: str) -> Calibration:
    words, depth = recording.depth_matrices[number]
    color = dict(recording.color_matrices).get(words)
    if color is None and number == 0:
        color = recording.color_matrices[0][1]
    if color is None:
        color = scale_matrix(depth, recording.depth_size, recording.color_size)
    return Calibration(color, depth, unit, convention)


def _groups(count: int) -> list[list[int]]:
    """Return frames to compare with each other: runs of neighbours, at places along the recording."""
    if count <= GROUPS * len(SPREAD):
        size = min(len(SPREAD), count)
        return [list(range(start, start + size)) for start in range(0, count - size + 1, max(1, count // GROUPS))]
    step = min(5, count // (GROUPS * len(SPREAD)))
    starts = np.linspace(0, count - 1 - SPREAD[-1] * step, GROUPS).round().astype(int)
    return [[int(start) + offset * step for offset in SPREAD] for start in starts]


def _read_probe(recording: Recording) -> _Probe:
    groups = _groups(len(recording))
    index = np.unique(np.concatenate(groups))
    place = {frame: row for row, frame in enumerate(index)}
    pairs = {(place[a], place[b]) for group in groups for a in group for b in group if a != b}
    pairs |= {(place[a[0]], place[b[0]]) for a, b in itertools.pairwise(groups)}
    depth, grey, pixels, good = [], [], [], []
    generator = np.random.default_rng(0)
    for frame in index:
        try:
            raw, picture = recording.load_depth(frame), recording.load_color(frame)
        except UserError:  # reported later, when all frames are read
            raw, picture = np.zeros(recording.depth_size), np.zeros((*recording.color_size, 3))
        rows, columns = resample(recording.depth_size, GRID)
        depth.append(raw[rows][:, columns])
        rows, columns = resample(recording.color_size, GRID)
        grey.append(picture[rows][:, columns].mean(-1))
        known = np.flatnonzero(depth[-1])
        pixels.append(generator.choice(known, min(SAMPLES, len(known)), replace=False))
        good.append(len(known) > 0)
    if not any(good):
        raise UserError(f"{recording.path}: the depth maps hold no measurement (all 0 or {65535}); is that the depth?")
    usable = sorted(pair for pair in pairs if good[pair[0]] and good[pair[1]])
    return _Probe(index, np.stack(depth), np.stack(grey), recording.poses[index], pixels, usable)


def _plausible_units(recording: Recording, probe: _Probe) -> tuple[float, ...]:
    """Return units under which the median depth is 0.15 m to 30 m; all of them if none is."""
    median = float(np.median(probe.depth[probe.depth > 0]))
    return tuple(unit for unit in recording.units if 0.15 < median / unit < 30) or recording.units


def _score(probe: _Probe, calibration: Calibration, recording: Recording) -> _Score:
    poses = camera_to_world(probe.poses, calibration.convention)
    to_camera = np.linalg.inv(poses)
    lifted = seen = both = agreeing = 0
    near: list[np.ndarray] = []
    far: list[np.ndarray] = []
    for a, b in probe.pairs:
        k_a, k_b = (scale_matrix(calibration.depth_of(probe.index[i]), recording.depth_size, GRID) for i in (a, b))
        rows, columns = np.divmod(probe.pixels[a], GRID[1])
        z = probe.depth[a][rows, columns] / calibration.units_per_metre
        rays = np.stack([(columns - k_a[0, 2]) / k_a[0, 0], (rows - k_a[1, 2]) / k_a[1, 1], np.ones(len(z))], 1)
        motion = to_camera[b] @ poses[a]
        points = (rays * z[:, None]) @ motion[:3, :3].T + motion[:3, 3]
        ahead = points[:, 2] > 0.05
        u = np.round(points[ahead, 0] / points[ahead, 2] * k_b[0, 0] + k_b[0, 2])
        v = np.round(points[ahead, 1] / points[ahead, 2] * k_b[1, 1] + k_b[1, 2])
        inside = (u >= 0) & (u < GRID[1]) & (v >= 0) & (v < GRID[0])
        u, v, distance = u[inside].astype(int), v[inside].astype(int), points[ahead, 2][inside]
        measured = probe.depth[b][v, u] / calibration.units_per_metre
        known = measured > 0
        agrees = known & (np.abs(distance - measured) < TOLERANCE * measured)
        lifted, seen, both = lifted + len(z), seen + len(u), both + int(known.sum())
        agreeing += int(agrees.sum())
        source = probe.grey[a][rows, columns][ahead][inside][agrees]
        target = probe.grey[b][v, u][agrees]
        near.append(np.abs(source - target))
        far.append(np.abs(source - np.roll(target, len(target) // 2)))
    contrast = float(np.concatenate(near).mean() / max(np.concatenate(far).mean(), 1e-6)) if agreeing > 50 else 0.0
    return _Score(agreeing / max(lifted, 1), agreeing / max(both, 1), seen / max(lifted, 1), contrast)


def _readings(recording: Recording, calibration: Calibration, words: str) -> list[str]:
    fx, size = calibration.depth_of(0)[0, 0], recording.depth_size
    return [
        f"poses read as {CONVENTIONS[calibration.convention]}",
        f"depth read as {calibration.units_per_metre:g} units per metre",
        f"intrinsics: {words} (focal length {fx:.1f} pixels at {size[1]} x {size[0]})",
    ]


def _describe(
    recording: Recording, first: Calibration, best: Calibration, words: str, initial: _Score, score: _Score
) -> list[str]:
    lines = [
        *_readings(recording, best, words),
        f"{score.agreement:.0%} of the points that two frames measure agree within {TOLERANCE:.0%}",
    ]
    if best.convention != first.convention:
        lines.append(f"as {first.convention} only {initial.agreement:.0%} would agree")
    return lines


def _try_focals(
    probe: _Probe, recording: Recording, best: Calibration, score: _Score, lines: list[str]
) -> tuple[Calibration, _Score]:
    """Search for a focal length under which the frames agree; if it is clearly better, use it with a warning."""
    found, found_score = best, score
    for factor in FOCAL_FACTORS:
        scale = np.diag([factor, factor, 1.0])
        depth, color = best.depth.copy(), best.color.copy()
        for matrix in (depth, color):
            centre = matrix[..., :2, 2].copy()
            matrix[...] = scale @ matrix
            matrix[..., :2, 2] = centre
        candidate = replace(best, depth=depth, color=color)
        candidate_score = _score(probe, candidate, recording)
        if candidate_score.reach > found_score.reach:
            found, found_score = candidate, candidate_score
    if found_score.agreement < max(GOOD, score.agreement + 0.15):
        return best, score
    lines.append(_wrong_focal(best, found, score, found_score))
    return found, found_score


def _wrong_focal(old: Calibration, new: Calibration, before: _Score, after: _Score) -> str:
    return (
        f"warning: the intrinsics look wrong: with a focal length of {new.color_of(0)[0, 0]:.0f} pixels instead of "
        f"{old.color_of(0)[0, 0]:.0f} in colour pictures {after.agreement:.0%} of the points agree "
        f"({before.agreement:.0%} before); used that; to keep yours, give --intrinsics FX FY CX CY"
    )


def _remarks(score: _Score) -> list[str]:
    lines = []
    if score.overlap < 0.05:
        lines.append("warning: neighbouring frames hardly see the same places; poses cannot be judged")
    elif score.agreement < GOOD:
        lines.append(
            f"warning: only {score.agreement:.0%} of the points agree between frames; no other reading of poses, "
            f"depth unit and focal length that was tried does better; likely causes: poses of another recording or "
            f"drifting tracking, colour and depth not in step, or lens distortion"
        )
    if score.contrast > 0.85:
        lines.append(
            "warning: colours of the same point in different frames do not match; "
            "are colour and depth pictures paired and aligned?"
        )
    return lines
