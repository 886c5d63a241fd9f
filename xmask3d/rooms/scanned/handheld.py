"""Viewpoints of a person who films a room from a few places, and their poses as recorded by a tracker."""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from xmask3d.errors import UserError
from xmask3d.rooms.layout import Room
from xmask3d.rooms.scanned.film import ScannedRoom
from xmask3d.rooms.scanned.settings import ScanSettings
from xmask3d.rooms.scanned.shape import ceiling_height, in_block
from xmask3d.rooms.viewpoints import (
    HEIGHT,
    PATIENCE,
    PREVIEW,
    WIDTH,
    Pose,
    cover,
    gap_to_pieces,
    small_intrinsics,
    visible_things,
    walk,
)

CANDIDATES = 4
"""Number of random views for each one that is kept."""

SECTOR = np.radians(60)
"""Largest angle between a view and the heading, if only one side of the room is recorded."""

MARGIN = 0.3
"""Metres between a camera and any wall."""


@dataclass(frozen=True)
class Route:
    """Way of a person through a room.

    Attributes:
        places: points at which the camera is held: x, y and the eye's height.
        heading: direction in which all views look, radians, or None for all directions.
    """

    places: list[NDArray[np.float64]]
    heading: float | None


def choose_route(room: ScannedRoom, settings: ScanSettings, rng: np.random.Generator) -> Route:
    """Draw the places of a recording; some recordings show only one side of the room."""
    low, high = (max(1, round(value)) for value in settings.places)
    count = int(rng.integers(low, high + 1))
    partial = rng.random() < settings.partial
    places = [_place(room.room, rng) for _ in range(min(count, 2) if partial else count)]
    if not partial or not room.room.pieces:
        return Route(places, None)
    # The side with a piece of furniture, since a bare wall is not worth a recording.
    space = room.room.pieces[int(rng.integers(len(room.room.pieces)))].box
    ahead = (np.array(space.low) + np.array(space.high)) / 2 - places[0]
    return Route(places, float(np.arctan2(ahead[1], ahead[0])))


def film_room(
    room: ScannedRoom, route: Route, count: int, settings: ScanSettings, rng: np.random.Generator
) -> list[Pose]:
    """Choose camera-to-world poses on a route, in the order of a walk.

    Raises:
        UserError: no view shows any object.
    """
    places = list(route.places)
    poses: list[Pose] = []
    scores: list[NDArray[np.float64]] = []
    for index in range(max(count * CANDIDATES, PATIENCE)):
        if index >= count * CANDIDATES and poses:
            break
        spot = index % len(places)
        # After many failures any direction is accepted.
        heading = route.heading if index < PATIENCE // 4 else None
        pose = _random_pose(room.room, places[spot], heading, settings, rng)
        intrinsics = small_intrinsics(PREVIEW)
        frame = room.renderer.render(pose, intrinsics, HEIGHT // PREVIEW, WIDTH // PREVIEW, colored=False)
        visible = visible_things(room, frame)
        if visible is None:
            # The person steps aside if only a wall or a cupboard is in the picture.
            if index % 7 == 6:
                places[spot] = _place(room.room, rng)
            continue
        poses.append(pose)
        scores.append(visible)
    if not poses:
        raise UserError(f"no camera in a {room.room.kind} sees anything; use another --seed")
    return walk([poses[i] for i in cover(np.stack(scores), count)])


def _place(room: Room, rng: np.random.Generator) -> NDArray[np.float64]:
    """Draw a place on free floor, or the freest of many; x, y and the eye's height."""
    best, best_gap = None, -1.0
    for _ in range(30):
        x, y = (float(rng.uniform(MARGIN, side - MARGIN)) for side in room.size[:2])
        top = ceiling_height(room, x, y)
        if in_block(room, x, y, MARGIN) or top < 1.5:
            continue
        eye = min(float(rng.uniform(1.15, 1.75)), top - 0.3)
        gap = gap_to_pieces(room, x, y, -np.inf, eye + 0.2)
        if gap > best_gap:
            best, best_gap = np.array([x, y, eye]), gap
        if gap > 0.25:
            break
    return np.array([room.size[0] / 2, room.size[1] / 2, 1.4]) if best is None else best


def _random_pose(
    room: Room,
    place: NDArray[np.float64],
    heading: float | None,
    settings: ScanSettings,
    rng: np.random.Generator,
) -> NDArray[np.float64]:
    """Look from near a place at a piece of furniture, or across the room."""
    eye = place + rng.normal(0, [0.12, 0.12, 0.06])
    eye[:2] = np.clip(eye[:2], 0.15, np.array(room.size[:2]) - 0.15)
    if room.pieces and rng.random() < 0.75:
        space = room.pieces[int(rng.integers(len(room.pieces)))].box
        target = (np.array(space.low) + np.array(space.high)) / 2
    else:
        target = np.array([*rng.uniform(0.15, 0.85, 2) * room.size[:2], rng.uniform(0.2, room.size[2] - 0.2)])
    ahead = target - eye
    yaw = float(np.arctan2(ahead[1], ahead[0])) + float(rng.normal(0, 0.15))
    if heading is not None:
        off = (yaw - heading + np.pi) % (2 * np.pi) - np.pi
        yaw = heading + SECTOR * off / np.pi
    pitch = float(np.arctan2(ahead[2], np.hypot(ahead[0], ahead[1]))) + float(rng.normal(0, 0.12))
    limit = np.radians(settings.pitch)
    pitch = float(np.clip(pitch, -limit, limit))
    return turned_pose(eye, yaw, pitch, np.radians(float(np.clip(rng.normal(0, settings.roll), -30, 30))))


def turned_pose(eye: NDArray[np.float64], yaw: float, pitch: float, roll: float) -> Pose:
    """Return the camera-to-world pose of a camera. Args: yaw, pitch, roll: radians; pitch above the horizon."""
    forward = np.array([np.cos(yaw) * np.cos(pitch), np.sin(yaw) * np.cos(pitch), np.sin(pitch)])
    right = np.array([np.sin(yaw), -np.cos(yaw), 0.0])
    down = np.cross(forward, right)
    c, s = np.cos(roll), np.sin(roll)
    pose = np.eye(4)
    pose[:3, 0], pose[:3, 1] = c * right + s * down, c * down - s * right
    pose[:3, 2], pose[:3, 3] = forward, eye
    return pose


def world_frame(settings: ScanSettings, rng: np.random.Generator) -> Pose:
    """Draw the recording's world: turned about the vertical by any angle, then tilted a little; 4 x 4."""
    turn = rotation([0, 0, 1], float(rng.uniform(0, 2 * np.pi)))
    heading = float(rng.uniform(0, 2 * np.pi))
    world = np.eye(4)
    world[:3, :3] = rotation([np.cos(heading), np.sin(heading), 0], np.radians(rng.uniform(0, settings.tilt))) @ turn
    return world


def tracked(poses: list[Pose], settings: ScanSettings, rng: np.random.Generator) -> list[Pose]:
    """Return the poses as recorded by a tracker, whose errors are similar from pose to pose."""
    shift, turn = rng.normal(0, settings.pose_shift, 3), rng.normal(0, settings.pose_turn, 3)
    written = []
    for pose in poses:
        # A random walk with constant variance: 0.8² + 0.6² = 1.
        shift = 0.8 * shift + 0.6 * rng.normal(0, settings.pose_shift, 3)
        turn = 0.8 * turn + 0.6 * rng.normal(0, settings.pose_turn, 3)
        angle = float(np.radians(np.linalg.norm(turn)))
        off = pose.copy()
        off[:3, :3] = rotation(turn, angle) @ pose[:3, :3]
        off[:3, 3] += shift
        written.append(off)
    return written


def rotation(axis: NDArray[np.float64] | list[float], angle: float) -> NDArray[np.float64]:
    """Return the 3 x 3 rotation about an axis by an angle in radians."""
    vector = np.asarray(axis, np.float64)
    x, y, z = vector / max(float(np.linalg.norm(vector)), 1e-12)
    cross = np.array([[0, -z, y], [z, 0, -x], [-y, x, 0]])
    return np.eye(3) + np.sin(angle) * cross + (1 - np.cos(angle)) * cross @ cross
