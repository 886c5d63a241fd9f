"""Layout of a room: a rectangular room, and pieces placed in it without touching each other."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import cached_property

import numpy as np

from xmask3d.rooms.furniture import FurnitureModel, load_mesh
from xmask3d.rooms.mesh import Mesh
from xmask3d.rooms.textures import recolored

Vector = tuple[float, float, float]

NORTH, WEST, SOUTH, EAST = range(4)
"""Walls y = depth, x = 0, y = 0, x = width. Furniture at wall w is rotated by w quarter turns to face the room."""

GAP = 0.02
"""Metres between any two pieces and between a piece and the wall."""


class DoesNotFit(Exception):
    """Error that there is no place for a required piece, so that the caller tries another arrangement."""


@dataclass(frozen=True)
class Box:
    """Axis-aligned block of space in metres."""

    low: Vector
    high: Vector

    def overlaps(self, other: "Box", margin: float = 0.0) -> bool:
        """Return True if the blocks are closer than `margin` along every axis."""
        return all(self.low[i] < other.high[i] + margin and other.low[i] < self.high[i] + margin for i in range(3))


def box_of(mesh: Mesh) -> Box:
    """Return the bounding box of a mesh."""
    (x0, y0, z0), (x1, y1, z1) = mesh.bounds.tolist()
    return Box((x0, y0, z0), (x1, y1, z1))


@dataclass(frozen=True)
class Piece:
    """Piece of furniture: a model in its place.

    Attributes:
        model: furniture model.
        position: middle of its underside, metres.
        angle: radians counter-clockwise from above; at 0 its front faces -y.
        scale: factors along its own width, depth, height.
        tint: colour and strength of its recolouring, or None.
    """

    model: FurnitureModel
    position: Vector
    angle: float
    scale: Vector = (1.0, 1.0, 1.0)
    tint: tuple[Vector, float] | None = None

    @cached_property
    def size(self) -> Vector:
        """Width, depth and height in metres, after scaling and before rotation."""
        w, d, h = (float(a * b) for a, b in zip(self.model.size, self.scale, strict=True))
        return w, d, h

    @cached_property
    def box(self) -> Box:
        """Block of space occupied by the piece."""
        w, d, h = self.size
        c, s = abs(np.cos(self.angle)), abs(np.sin(self.angle))
        half_x, half_y = float(w * c + d * s) / 2, float(w * s + d * c) / 2
        x, y, z = self.position
        return Box((x - half_x, y - half_y, z), (x + half_x, y + half_y, z + h))

    def mesh(self) -> Mesh:
        """Return the mesh of the piece in the room's frame."""
        mesh = load_mesh(self.model).scaled(self.scale).turned(self.angle).moved(self.position)
        if self.tint is not None:
            color, strength = self.tint
            mesh.textures = [recolored(image, color, strength) for image in mesh.textures]
        return mesh


@dataclass(frozen=True)
class Slope:
    """Sloped ceiling, which rises from `low` metres at a wall to the room's height at `run` metres from the wall."""

    wall: int
    low: float
    run: float


@dataclass
class Room:
    """Room from (0, 0, 0) to `size`, with its pieces and the space that must stay free.

    Attributes:
        kind: kind of room, such as "kitchen".
        size: width, depth and height, metres.
        pieces: furniture in its place.
        reserved: space that must stay free.
        blocks: walled-off parts from floor to ceiling, which are reserved too.
        slope: sloped part of the ceiling, or None.
    """

    kind: str
    size: Vector
    pieces: list[Piece] = field(default_factory=list)
    reserved: list[Box] = field(default_factory=list)
    blocks: list[Box] = field(default_factory=list)
    slope: Slope | None = None

    def length(self, wall: int) -> float:
        """Return the length of a wall in metres."""
        return self.size[0] if wall in (NORTH, SOUTH) else self.size[1]

    def at_wall(self, wall: int, along: float, away: float) -> tuple[float, float]:
        """Return the point (x, y) at `along` metres along a wall and `away` metres from it."""
        width, depth, _ = self.size
        return {NORTH: (along, depth - away), WEST: (away, along), SOUTH: (along, away), EAST: (width - away, along)}[
            wall
        ]

    def box_at(self, wall: int, along: tuple[float, float], away: tuple[float, float], low: float, high: float) -> Box:
        """Return the block at a wall that spans `along`, `away` (distances from the wall) and a range of heights."""
        a, b = (self.at_wall(wall, *ends) for ends in zip(along, away, strict=True))
        return Box((min(a[0], b[0]), min(a[1], b[1]), low), (max(a[0], b[0]), max(a[1], b[1]), high))

    def is_free(self, box: Box, ignore: Sequence[Piece] = ()) -> bool:
        """Return True if a block is inside the room and touches no piece and no reserved space."""
        inside = all(box.low[i] >= -1e-6 and box.high[i] <= self.size[i] + 1e-6 for i in range(3))
        if not inside or any(box.overlaps(space) for space in self.reserved):
            return False
        return not any(
            box.overlaps(other.box, GAP) for other in self.pieces if all(other is not skip for skip in ignore)
        )

    def put(self, piece: Piece) -> bool:
        """Add a piece if there is enough space."""
        if not self.is_free(piece.box):
            return False
        self.pieces.append(piece)
        return True

    def reserve_before(self, piece: Piece, wall: int, distance: float, height: float = 2.0) -> None:
        """Keep the floor in front of a piece at a wall free."""
        width = piece.size[0]
        center = piece.position[0] if wall in (NORTH, SOUTH) else piece.position[1]
        near = piece.size[1] + GAP
        along = (center - width / 2, center + width / 2)
        self.reserved.append(self.box_at(wall, along, (near, near + distance), 0.0, height))


def beside(piece: Piece, side: float, front: float = 0.0) -> tuple[float, float]:
    """Return the point (x, y) `side` metres right of a piece's middle, seen from the front, and `front` before it."""
    c, s = np.cos(piece.angle), np.sin(piece.angle)
    x, y = side, -front
    return float(piece.position[0] + c * x - s * y), float(piece.position[1] + s * x + c * y)
