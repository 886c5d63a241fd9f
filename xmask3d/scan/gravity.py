"""Up direction of a scan: the networks were trained with z up, but a scan may have any axis up."""

import itertools
from dataclasses import dataclass, field

import numpy as np
from scipy.spatial import cKDTree

from xmask3d.scan.upright import Places, evidence

SAMPLE = 20_000  # number of points for which normals are estimated
FEW = 8_000  # number of them that are evaluated if there are no cameras
NEIGHBOURS = 16
ALIGNED = np.cos(np.radians(12))
NAMES = {"z": (0, 0, 1), "-z": (0, 0, -1), "y": (0, 1, 0), "-y": (0, -1, 0), "x": (1, 0, 0), "-x": (-1, 0, 0)}


# Log probability that this axis is up, relative to others: as in files of laser scanners, of graphics, of cameras.
USUAL = {"z": 1.0, "y": 0.7, "-y": 0.7}
SURE = 0.8  # probability
GUESSES = 4
HELD = 8.0  # weight of the cosine to the up direction of the camera that took a cloud
PART = 0.5  # weight of the evidence of rooms for a part of a room
SMALL = 2.5  # metres; a smaller cloud is a part of a room
TILTED = 35  # largest angle between an axis named by the user and the normal of level surfaces, in degrees
SLIGHT = 1.0  # smallest tilt, in degrees
STRAIGHT = np.cos(np.radians(50))  # angle to the camera's up direction


@dataclass
class Gravity:
    """Up direction.

    Attributes:
        up: 3 float64, unit.
        rotation: 3 x 3, maps the scan's frame to one with z up.
        words: description of the finding.
        guesses: k x 4, likely up directions and their log probabilities, if the finding is uncertain.
    """

    up: np.ndarray
    rotation: np.ndarray
    words: str
    guesses: np.ndarray = field(default_factory=lambda: np.zeros((0, 4)))


def find_up(
    points: np.ndarray,
    cameras: np.ndarray | None = None,
    known: str | None = None,
    camera: np.ndarray | None = None,
) -> Gravity:
    """Estimate the up direction of a cloud.

    Floors, ceilings and table tops share a normal. A camera held straight or on its side has a level axis. Among
    directions that fit equally well, axes of the scan's frame are preferred, z first. Without cameras the geometry of
    rooms decides, see `evidence`.

    Args:
        points: n x 3 float, finite.
        cameras: m x 3 x 3 rotations, camera (x right, y down) to world.
        known: key of `NAMES`, if the recorder fixes the axis.
        camera: 3 x 3 axes of the camera that took the complete cloud, which people hold roughly straight; see
            `camera_of`.
    """
    places, unsure, guesses = find_places(points), "", np.zeros((0, 4))
    normals = places.normals[places.flat]
    if known is not None:
        up, how = np.array(NAMES[known], float), "the recorder says that up is"
    elif cameras is not None and len(cameras):
        up, how = _with_cameras(points, normals, cameras), "the cameras and the floor say that up is"
    else:
        (up, unsure, guesses), how = without_cameras(places, camera), "floor, walls and furniture say that up is"
    if up[2] > np.cos(np.radians(4)):
        return Gravity(np.array([0.0, 0, 1]), np.eye(3), f"z is up{unsure}", guesses)
    name = max(NAMES, key=lambda key: float(np.dot(NAMES[key], up)))
    tilt = np.degrees(np.arccos(np.clip(np.dot(NAMES[name], up), -1, 1)))
    tilted = "" if tilt < 1 else f", tilted by {tilt:.0f} degrees"
    words = f"{how} {name}{tilted}; turned upright for the networks, not in the output{unsure}"
    return Gravity(up, rotation_to_z(up), words, guesses)


def _with_cameras(points: np.ndarray, normals: np.ndarray, cameras: np.ndarray) -> np.ndarray:
    """Find the direction that suits cameras and surfaces best.

    A camera held straight has a level right axis and a down axis that points down. For a camera held on its side it is
    the other way round; that also fits any wall that a standing camera looks along, so it counts less. A sweep of the
    cameras is the strongest evidence; without one it is floors, cameras that look down, and rooms that are low.
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


def find_places(points: np.ndarray) -> Places:
    """Estimate normals at a sample of the points; the sample is empty for tiny clouds."""
    if len(points) < 4 * NEIGHBOURS:
        return Places(np.zeros((0, 3)), np.zeros((0, 3)), np.zeros(0, bool))
    generator = np.random.default_rng(0)
    crowd = points[generator.choice(len(points), min(len(points), 10 * SAMPLE), replace=False)].astype(np.float64)
    picked = crowd[: min(SAMPLE, len(crowd))]
    _, near = cKDTree(crowd).query(picked, NEIGHBOURS)
    offsets = crowd[near] - crowd[near].mean(1, keepdims=True)
    values, vectors = np.linalg.eigh(np.einsum("nki,nkj->nij", offsets, offsets))
    return Places(picked, vectors[:, :, 0], values[:, 0] < 0.05 * np.maximum(values[:, 1], 1e-12))


def _sharpen(normals: np.ndarray, guess: np.ndarray, cone: float) -> np.ndarray:
    """Return the mode of the normals within a cone around a guess, or the guess if there are too few."""
    up = guess
    for width in (cone, ALIGNED, np.cos(np.radians(5))):
        along = normals @ up
        near = np.abs(along) > width
        if near.sum() < max(20, 0.02 * len(normals)):
            break
        up = (normals[near] * np.sign(along[near])[:, None]).mean(0)
        up /= np.linalg.norm(up)
    return up


def without_cameras(places: Places, camera: np.ndarray | None) -> tuple[np.ndarray, str, np.ndarray]:
    """Find the direction best supported by the geometry; if the support is weak, also a remark and guesses."""
    none = np.zeros((0, 4))
    places = Places(*(values[:: max(1, len(places.points) // FEW)] for values in places))
    normals = places.normals[places.flat]
    axes = find_modes(normals) if len(normals) >= 50 else []
    held = None if camera is None else -camera[:, 1]
    if not axes:
        taken = np.array([0.0, 0, 1]) if held is None else held
        return taken, "; too little surface to decide, so it is not rotated (--up rotates it)", none
    directions, scores = evidence(places, axes)
    if held is not None and (directions @ held).max() < STRAIGHT:
        return held, "; the view of a camera without a floor, so its tilt is not known (--up turns it)", none
    if held is not None or max(np.ptp(np.percentile(places.points, (1, 99), axis=0), axis=0)) < SMALL:
        scores = PART * scores
    scores = scores + ([_usual(direction) for direction in directions] if held is None else HELD * (directions @ held))
    order = np.argsort(-scores)
    probability = np.exp(scores - scores[order[0]])
    probability /= probability.sum()
    if probability[order[0]] >= SURE:
        return directions[order[0]], "", none
    other = max(NAMES, key=lambda key: float(np.dot(NAMES[key], directions[order[1]])))
    guesses = np.column_stack([directions, np.log(probability)])[order[:GUESSES]]
    return directions[order[0]], f"; unsure: it may be {other} (--up {other} turns it)", guesses


def refine(points: np.ndarray, up: str) -> Gravity:
    """Take an axis named by the user as roughly up, and find the tilt from surfaces that are nearly level.

    Args:
        points: n x 3 float, finite.
        up: key of `NAMES`.
    """
    axis, places = np.array(NAMES[up], float), find_places(points)
    normals = places.normals[places.flat]
    modes = find_modes(normals) if len(normals) >= 50 else []
    near = [mode * np.sign(mode @ axis) for mode in modes if abs(mode @ axis) > np.cos(np.radians(TILTED))]
    found = axis
    if near:
        directions, scores = evidence(places, near)
        ahead = directions @ axis > 0
        found = directions[ahead][np.argmax(scores[ahead] + HELD * (directions[ahead] @ axis))]
    tilt = np.degrees(np.arccos(np.clip(found @ axis, -1, 1)))
    if tilt < SLIGHT:
        return Gravity(axis, rotation_to_z(axis), f"up is {up}, as given")
    words = f"up is {up}, as given, tilted by {tilt:.0f} degrees as the level surfaces are"
    return Gravity(found, rotation_to_z(found), words)


def _usual(direction: np.ndarray) -> float:
    name = max(NAMES, key=lambda key: float(np.dot(NAMES[key], direction)))
    return USUAL.get(name, 0.0)


def find_modes(normals: np.ndarray, most: int = 6) -> list[np.ndarray]:
    """Find axes that many of the normals share, the most common first."""
    modes: list[np.ndarray] = []
    left, trials = normals, normals[:: max(1, len(normals) // 80)]
    while len(modes) < most and len(trials):
        counts = (np.abs(left @ trials.T) > ALIGNED).sum(0)
        if counts.max() < max(20, 0.02 * len(normals)):
            break
        mode = _sharpen(normals, trials[counts.argmax()], ALIGNED)
        modes.append(mode)
        left, trials = (values[np.abs(values @ mode) < np.cos(np.radians(15))] for values in (left, trials))
    # If the floor is missing, up is the direction in which two walls meet.
    for a, b in itertools.combinations(modes[:4], 2):
        common = np.cross(a, b)
        length = float(np.linalg.norm(common))
        if length > ALIGNED and all(abs(common @ mode) < ALIGNED * length for mode in modes):
            modes.append(_sharpen(normals, common / length, ALIGNED))
    return modes


def _height(points: np.ndarray, axis: np.ndarray) -> float:
    low, high = np.percentile(points[:: max(1, len(points) // SAMPLE)] @ axis, (1, 99))
    return float(high - low)


def rotation_to_z(up: np.ndarray) -> np.ndarray:
    """Return the smallest rotation from `up` to z."""
    axis = np.cross(up, (0, 0, 1))
    sine, cosine = np.linalg.norm(axis), up[2]
    if sine < 1e-9:
        return np.eye(3) if cosine > 0 else np.diag([1.0, -1.0, -1.0])
    x, y, z = axis / sine
    cross = np.array([[0, -z, y], [z, 0, -x], [-y, x, 0]])
    return np.eye(3) + sine * cross + (1 - cosine) * cross @ cross
