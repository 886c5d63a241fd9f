"""Shapes of rooms that are not boxes: walled off corners, chimney breasts with alcoves, sloped ceilings."""

import numpy as np

from xmask3d.rooms.layout import EAST, NORTH, SOUTH, WEST, Box, Room, Slope
from xmask3d.rooms.mesh import ByteArray, Mesh, box, polygons
from xmask3d.rooms.scanned.settings import ScanSettings

STEPS = 8
"""Blocks of reserved space that approximate the space above a slope."""


def shape_room(room: Room, settings: ScanSettings, rng: np.random.Generator) -> None:
    """Wall off parts of an empty room and slope its ceiling; small rooms stay boxes."""
    width, depth, height = room.size
    if min(width, depth) < 2.9:
        return
    if rng.random() < settings.l_shape:
        x, y = (float(rng.uniform(0.22, 0.36)) * side for side in (width, depth))
        left, front = (float(rng.random()) < 0.5 for _ in range(2))
        low = (0.0 if left else width - x, 0.0 if front else depth - y, 0.0)
        room.blocks.append(Box(low, (low[0] + x, low[1] + y, height)))
    elif rng.random() < settings.chimney:
        _chimney(room, rng)
    if rng.random() < settings.slope:
        wall = int(rng.integers(0, 4))
        reach = min(float(rng.uniform(0.6, 1.4)), (depth if wall in (NORTH, SOUTH) else width) * 0.35)
        room.slope = Slope(wall, float(rng.uniform(1.3, 2.0)), reach)
    room.reserved += [*room.blocks, *_above(room)]


def _chimney(room: Room, rng: np.random.Generator) -> None:
    """Place a block in front of the middle of a wall."""
    wall, across, deep = int(rng.integers(0, 4)), float(rng.uniform(0.7, 1.4)), float(rng.uniform(0.2, 0.45))
    middle = room.length(wall) * float(rng.uniform(0.35, 0.65))
    along = (middle - across / 2, middle + across / 2)
    room.blocks.append(room.box_at(wall, along, (0.0, deep), 0.0, room.size[2]))


def _above(room: Room) -> list[Box]:
    """Return blocks that hold the space above a slope."""
    if room.slope is None:
        return []
    blocks, slope, height = [], room.slope, room.size[2]
    for step in range(STEPS):
        near, far = slope.run * step / STEPS, slope.run * (step + 1) / STEPS
        z = slope.low + (height - slope.low) * step / STEPS
        blocks.append(room.box_at(slope.wall, (0.0, room.length(slope.wall)), (near, far), z, height))
    return blocks


def ceiling_height(room: Room, x: float, y: float) -> float:
    """Return the height of the ceiling above a place on the floor."""
    if room.slope is None:
        return room.size[2]
    width, depth, height = room.size
    away = {NORTH: depth - y, SOUTH: y, WEST: x, EAST: width - x}[room.slope.wall]
    return min(height, room.slope.low + (height - room.slope.low) * away / room.slope.run)


def in_block(room: Room, x: float, y: float, margin: float) -> bool:
    """Return True for a place on the floor inside a walled-off part, or closer to one than `margin` metres."""
    return any(
        block.low[0] - margin < x < block.high[0] + margin and block.low[1] - margin < y < block.high[1] + margin
        for block in room.blocks
    )


def slope_mesh(room: Room, image: ByteArray) -> list[Mesh]:
    """Build the sloped part of the ceiling, if there is one."""
    if room.slope is None:
        return []
    slope, length = room.slope, room.length(room.slope.wall)
    a, b = room.at_wall(slope.wall, 0.0, 0.0), room.at_wall(slope.wall, length, 0.0)
    c, d = room.at_wall(slope.wall, length, slope.run), room.at_wall(slope.wall, 0.0, slope.run)
    high = room.size[2]
    return [polygons([[(*a, slope.low), (*b, slope.low), (*c, high), (*d, high)]], image, 2.0)]


def block_meshes(room: Room, image: ByteArray, texel: float) -> list[Mesh]:
    """Build the walls around walled off parts."""
    return [box(block.low, block.high, image, texel) for block in room.blocks]
