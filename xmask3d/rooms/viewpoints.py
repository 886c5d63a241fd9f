"""Viewpoints of the cameras: at eye height above free floor, facing objects, as a person scans a room."""

import numpy as np
from numpy.typing import NDArray

from xmask3d.errors import UserError
from xmask3d.rooms.layout import Room
from xmask3d.rooms.render import Frame, look_at
from xmask3d.rooms.structure import BuiltRoom

INTRINSICS = np.array([[288.9353025, 0, 159.5, 0], [0, 288.9353025, 119.5, 0], [0, 0, 1, 0], [0, 0, 0, 1.0]])
"""Intrinsics of every frame, 4 x 4 in pixels: those of ScanNet's frames at 320 x 240."""

HEIGHT, WIDTH = 240, 320

PREVIEW = 8
"""Factor by which the pictures for judging candidates are smaller."""

PATIENCE = 500
"""Number of candidates after which a room without any good view is given up."""

MIN_SURFACE = 1.0
"""Smallest area of a view in square metres; a smaller one would contain too few scene points."""

Pose = NDArray[np.float64]


def choose_views(built: BuiltRoom, count: int, rng: np.random.Generator, candidates_per_view: int = 4) -> list[Pose]:
    """Choose camera-to-world poses of the frames, in the order of a walk.

    Of many random views, those that show objects are kept, and among these the ones that show what others do not.

    Raises:
        UserError: no view shows any object.
    """
    poses: list[Pose] = []
    scores: list[NDArray[np.float64]] = []
    candidates = count * candidates_per_view
    for index in range(max(candidates, PATIENCE)):
        if index >= candidates and poses:
            break
        pose = _random_view(built, index, rng)
        frame = built.renderer.render(
            pose, small_intrinsics(PREVIEW), HEIGHT // PREVIEW, WIDTH // PREVIEW, colored=False
        )
        visible = visible_things(built, frame)
        if visible is not None:
            poses.append(pose)
            scores.append(visible)
    if not poses:
        raise UserError(f"no camera in a {built.room.kind} sees anything; use another --seed")
    chosen = cover(np.stack(scores), count)
    return walk([poses[i] for i in chosen])


def small_intrinsics(factor: int) -> NDArray[np.float64]:
    """Return the intrinsics of the picture with every `factor`-th row and column of a frame."""
    small = INTRINSICS.copy()
    small[:2, :3] /= factor
    return small


def small_view(built: BuiltRoom, pose: Pose, factor: int) -> Frame:
    """Draw every `factor`-th row and column of a frame."""
    return built.renderer.render(pose, small_intrinsics(factor), HEIGHT // factor, WIDTH // factor)


def _random_view(built: BuiltRoom, index: int, rng: np.random.Generator) -> Pose:
    """Draw a view from free floor at one of the pieces in turn, or across the room."""
    room = built.room
    eye_height = min(float(rng.uniform(1.25, 1.75)), room.size[2] - 0.4)
    spots = [_free_spot(built, eye_height, rng) for _ in range(2)]
    eye = spots[0]
    middle = np.array([room.size[0] / 2, room.size[1] / 2, 0.8])
    if room.pieces and index % 4:
        piece = room.pieces[int(rng.integers(len(room.pieces)))]
        space = piece.box
        target = (np.array(space.low) + np.array(space.high)) / 2
        # Look slightly past it into the room, so that several objects are in the picture.
        target = target + rng.uniform(0.0, 0.4) * (middle - target)
        # From the more distant of two places, more of it is in the picture.
        eye = max(spots, key=lambda spot: float(np.linalg.norm(target[:2] - spot[:2])))
    else:
        target = middle + rng.normal(0, 0.5, 3) * [1, 1, 0.4]
    target[2] = np.clip(target[2], 0.2, 1.5)
    flat = np.linalg.norm(target[:2] - eye[:2])
    if flat < 0.9:
        # If it is too near, look at the far side of the room instead of the floor.
        away = middle[:2] - eye[:2]
        target[:2] = eye[:2] + 2.0 * away / max(float(np.linalg.norm(away)), 1e-3)
        target[2] = rng.uniform(0.5, 1.2)
    return look_at(eye, target)


def _free_spot(built: BuiltRoom, height: float, rng: np.random.Generator) -> NDArray[np.float64]:
    """Draw a point at eye height outside all pieces; above low furniture only if the floor is full."""
    room = built.room
    margin = 0.3
    best, best_room = None, -1.0
    for attempt in range(30):
        x, y = rng.uniform(margin, room.size[0] - margin), rng.uniform(margin, room.size[1] - margin)
        reach = 0.25 if attempt < 20 else 0.15
        distance = gap_to_pieces(room, x, y, height - 0.4 if attempt >= 20 else -np.inf, height + 0.2)
        if distance > best_room:
            best, best_room = np.array([x, y, height]), distance
        if distance > reach:
            break
    assert best is not None
    return best


def gap_to_pieces(room: Room, x: float, y: float, low: float, high: float) -> float:
    """Return the horizontal distance from a place to the nearest piece at heights from `low` to `high`, in metres."""
    gap = 9.0
    for piece in room.pieces:
        space = piece.box
        if space.low[2] <= high and space.high[2] >= low:
            dx = max(space.low[0] - x, x - space.high[0], 0.0)
            dy = max(space.low[1] - y, y - space.high[1], 0.0)
            gap = min(gap, float(np.hypot(dx, dy)))
    return gap


def visible_things(built: BuiltRoom, frame: Frame) -> NDArray[np.float64] | None:
    """Return the share of the picture that each instance fills, or None for a view that shows too little."""
    count = np.bincount(frame.instance[frame.instance >= 0], minlength=len(built.kinds)) / frame.instance.size
    bare = np.array([kind in ("floor", "wall", "ceiling", "rug") for kind in built.kinds])
    things = np.where(bare, 0, count)
    near = np.mean(frame.depth < 0.5)
    # Surface in the picture, in square metres, if all of it faced the camera.
    surface = float((frame.depth**2).sum()) * PREVIEW**2 / INTRINSICS[0, 0] ** 2
    if near > 0.1 or surface < MIN_SURFACE or (things > 0.01).sum() < 2 or things.sum() < 0.12 or things.max() > 0.7:
        return None
    return things


def cover(visible: NDArray[np.float64], count: int) -> list[int]:
    """Choose views greedily so that each object is seen often: an object seen k times counts 1 / (1 + k)."""
    seen = np.zeros(visible.shape[1])
    chosen: list[int] = []
    gain = np.minimum(visible, 0.08) / 0.08
    left = list(range(len(visible)))
    while len(chosen) < count:
        if not left:
            # If there are fewer good views than frames, some are repeated.
            left = list(range(len(visible)))
        best = max(left, key=lambda i: float((gain[i] / (1 + seen)).sum()))
        left.remove(best)
        chosen.append(best)
        seen += gain[best]
    return chosen


def walk(poses: list[Pose]) -> list[Pose]:
    """Order views so that each is near the previous one in position and direction."""
    left = list(range(1, len(poses)))
    order = [0]
    while left:
        here = poses[order[-1]]
        step = [
            float(np.linalg.norm(poses[i][:3, 3] - here[:3, 3]) + np.linalg.norm(poses[i][:3, 2] - here[:3, 2]))
            for i in left
        ]
        order.append(left.pop(int(np.argmin(step))))
    return [poses[i] for i in order]
