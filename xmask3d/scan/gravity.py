"""Up direction of a scan: the networks were trained with z up, and scans come with any axis."""

from dataclasses import dataclass

import numpy as np
from scipy.spatial import cKDTree

SAMPLE = 20_000  # points whose normals are looked at
NEIGHBOURS = 16
ALIGNED = np.cos(np.radians(12))
NAMES = {"z": (0, 0, 1), "-z": (0, 0, -1), "y": (0, 1, 0), "-y": (0, -1, 0), "x": (1, 0, 0), "-x": (-1, 0, 0)}


UNSURE = 0.05  # of `bottom_weight`, below which its sign says nothing
UNSURE_WORDS = "; unsure whether it is upside down (--up turns it)"


@dataclass
class Gravity:
    """Up direction.

    Attributes:
        up: 3 float64, unit.
        rotation: 3 x 3, maps the scan's frame to one with z up.
        words: description of the finding.
    """

    up: np.ndarray
    rotation: np.ndarray
    words: str


def find_up(points: np.ndarray, cameras: np.ndarray | None = None, known: str | None = None) -> Gravity:
    """Estimate the up direction of a cloud.

    Floors, ceilings and table tops share one normal. Cameras that are held straight, or on their side, have one axis
    level; of directions that fit alike an axis of the scan's frame is preferred, z first. Without cameras z is
    preferred, then y, then whichever direction most level surface has; which of its ends is up, furniture decides.

    Args:
        points: n x 3 float, finite.
        cameras: m x 3 x 3 rotations, camera (x right, y down) to world.
        known: key of `NAMES` where the recorder fixes it.
    """
    normals, unsure = _normals(points), ""
    if known is not None:
        up, how = np.array(NAMES[known], float), "the recorder says that up is"
    elif cameras is not None and len(cameras):
        up, how = _with_cameras(points, normals, cameras), "the cameras and the floor say that up is"
    else:
        up, how = _without_cameras(points, normals), "floor and walls say that up is"
        weight = bottom_weight(points, up) if len(normals) >= 50 else 0.0
        up = -up if weight < -UNSURE else up
        unsure = UNSURE_WORDS if abs(weight) < UNSURE else ""
    if up[2] > np.cos(np.radians(4)):
        return Gravity(np.array([0.0, 0, 1]), np.eye(3), f"z is up{unsure}")
    name = max(NAMES, key=lambda key: float(np.dot(NAMES[key], up)))
    tilt = np.degrees(np.arccos(np.clip(np.dot(NAMES[name], up), -1, 1)))
    tilted = "" if tilt < 1 else f", tilted by {tilt:.0f} degrees"
    return Gravity(
        up, rotation_to_z(up), f"{how} {name}{tilted}; turned upright for the networks, not in the output{unsure}"
    )


def _with_cameras(points: np.ndarray, normals: np.ndarray, cameras: np.ndarray) -> np.ndarray:
    """Find the direction that suits cameras and surfaces best.

    A camera held straight has its right axis level and its down axis down; one held on its side the other way round,
    which alone fits any wall that a standing camera looks along, so it is believed less. A sweep of the cameras
    decides most; where there is none, floors, looking down and the lowness of rooms do.
    """
    right, down, ahead = (cameras[:, :, axis].astype(np.float64) for axis in range(3))
    heights = {name: _height(points, np.array(NAMES[name], float)) for name in "xyz"} if len(points) else {}

    def share(axis: np.ndarray) -> float:
        return float((np.abs(normals @ axis) > ALIGNED).mean()) if len(normals) else 0.0

    def score(axis: np.ndarray) -> float:
        straight = -float((down @ axis).mean()) - 4 * float(((right @ axis) ** 2).mean())
        aside = abs(float((right @ axis).mean())) - 4 * float(((down @ axis) ** 2).mean()) - 0.35
        looking_down = -0.3 * float((ahead @ axis).mean())
        low = 0.3 * (1 - _height(points, axis) / max(heights.values())) if heights and max(heights.values()) else 0.0
        return max(straight, aside) + looking_down + low + min(share(axis), 0.4)

    named = [np.array(axis, float) for axis in NAMES.values()]
    level = [np.linalg.eigh(np.einsum("ni,nj->ij", axes, axes))[1][:, 0] for axes in (right, down)]
    modes = [_sharpen(normals, normal, ALIGNED) for normal in normals[:: max(1, len(normals) // 40)]]
    free = [sign * axis for axis in (*level, *modes) for sign in (1, -1)]
    scores = [score(axis) + (0.15 if axis[2] == 1 else 0.05) for axis in named] + [score(axis) for axis in free]
    return _sharpen(normals, [*named, *free][int(np.argmax(scores))], ALIGNED)


def _normals(points: np.ndarray) -> np.ndarray:
    """Estimate unit normals of flat places among a sample, m x 3; empty for tiny clouds."""
    if len(points) < 4 * NEIGHBOURS:
        return np.zeros((0, 3))
    generator = np.random.default_rng(0)
    crowd = points[generator.choice(len(points), min(len(points), 10 * SAMPLE), replace=False)].astype(np.float64)
    picked = crowd[: min(SAMPLE, len(crowd))]
    _, near = cKDTree(crowd).query(picked, NEIGHBOURS)
    offsets = crowd[near] - crowd[near].mean(1, keepdims=True)
    values, vectors = np.linalg.eigh(np.einsum("nki,nkj->nij", offsets, offsets))
    flat = values[:, 0] < 0.05 * np.maximum(values[:, 1], 1e-12)
    return vectors[flat, :, 0]


def _sharpen(normals: np.ndarray, guess: np.ndarray, cone: float) -> np.ndarray:
    """Return the mode of the normals within a cone around a guess, or the guess where there are too few."""
    up = guess
    for width in (cone, ALIGNED, np.cos(np.radians(5))):
        along = normals @ up
        near = np.abs(along) > width
        if near.sum() < max(20, 0.02 * len(normals)):
            break
        up = (normals[near] * np.sign(along[near])[:, None]).mean(0)
        up /= np.linalg.norm(up)
    return up


def _without_cameras(points: np.ndarray, normals: np.ndarray) -> np.ndarray:
    if len(normals) < 50:
        return np.array([0.0, 0, 1])

    def share(axis: np.ndarray) -> float:
        return float((np.abs(normals @ axis) > ALIGNED).mean())

    for name in ("z", "y", "x"):
        axis = np.array(NAMES[name], float)
        others = [np.array(NAMES[other], float) for other in "xyz" if other != name]
        # Up is the axis along which a room is lowest, unless another axis shows nearly no level surface.
        if share(axis) > 0.12 and _height(points, axis) <= 1.3 * min(_height(points, other) for other in others):
            return _sharpen(normals, axis, ALIGNED)
    if share(np.array([0.0, 0, 1])) > 0.08:
        return _sharpen(normals, np.array([0.0, 0, 1]), ALIGNED)
    # No axis of the frame fits: the direction with the most surface among those where the cloud is lowest.
    modes = [_sharpen(normals, normal, ALIGNED) for normal in normals[:: max(1, len(normals) // 60)]]
    best = max(modes, key=lambda axis: share(axis) / max(_height(points, axis), 1e-6))
    return best if best[np.argmax(np.abs(best))] > 0 else -best


def bottom_weight(points: np.ndarray, up: np.ndarray) -> float:
    """Measure by how much more a cloud holds near its bottom than near its top, in -1..1; negative on its head.

    Furniture stands on the floor, while below a ceiling there are bare walls. So the points between the two are counted
    in the lower and in the upper half; and the points of floor and ceiling, which is often not scanned.

    Args:
        points: n x 3.
        up: 3, unit.
    """
    heights = points[:: max(1, len(points) // SAMPLE)] @ up
    low, high = np.percentile(heights, (0.5, 99.5))
    if high - low < 0.5:  # metres; one level surface
        return 0.0
    part, end = (heights - low) / (high - low), 0.1 / (high - low)
    inner = part[(part >= end) & (part <= 1 - end)]
    if len(inner) < 50:
        return 0.0
    furniture = float((inner < 0.45).mean() - (inner > 0.55).mean())
    return furniture + 0.5 * float((part < end).mean() - (part > 1 - end).mean())


def _height(points: np.ndarray, axis: np.ndarray) -> float:
    low, high = np.percentile(points[:: max(1, len(points) // SAMPLE)] @ axis, (1, 99))
    return float(high - low)


def rotation_to_z(up: np.ndarray) -> np.ndarray:
    """Return the smallest rotation that takes `up` to z."""
    axis = np.cross(up, (0, 0, 1))
    sine, cosine = np.linalg.norm(axis), up[2]
    if sine < 1e-9:
        return np.eye(3) if cosine > 0 else np.diag([1.0, -1.0, -1.0])
    x, y, z = axis / sine
    cross = np.array([[0, -z, y], [z, 0, -x], [-y, x, 0]])
    return np.eye(3) + sine * cross + (1 - cosine) * cross @ cross
