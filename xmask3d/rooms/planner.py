"""Choice of furniture and its places: along walls, in corners, around tables."""

from collections.abc import Sequence

import numpy as np

from xmask3d.rooms.furniture import FurnitureModel
from xmask3d.rooms.layout import EAST, GAP, NORTH, SOUTH, WEST, DoesNotFit, Piece, Room, Vector, beside
from xmask3d.rooms.procedural import ProceduralSource
from xmask3d.rooms.textures import hsv

KEEPS_COLOR = {"toilet", "sink", "wall sink", "bathtub", "window", "picture", "plant", "counter sink", "refrigerator",
               "mirror"}  # fmt: skip
"""Kinds that are not recoloured, since a blue toilet is rare and a picture has its own colours."""

LIBRARY_SHARE = 0.65
"""Probability of taking a library model if there is one; the rest is procedural."""


class Planner:
    """Planner that furnishes a room.

    Args:
        room: empty room.
        models: models that may be used.
        rng: random generator of all choices.
    """

    def __init__(self, room: Room, models: Sequence[FurnitureModel], rng: np.random.Generator) -> None:
        self.room = room
        self.rng = rng
        self.by_kind: dict[str, list[FurnitureModel]] = {}
        for model in models:
            self.by_kind.setdefault(model.kind, []).append(model)

    def chance(self, probability: float) -> bool:
        """Return True with a given probability."""
        return bool(self.rng.random() < probability)

    def pick(self, *kinds: str, longest: float = 99.0, made: bool | None = None) -> Piece:
        """Pick a piece of one of several kinds, at the origin, slightly rescaled and often recoloured.

        Args:
            longest: upper limit of the width in metres; ignored if all models are wider.
            made: True for procedural models only.

        Raises:
            DoesNotFit: there is no model of these kinds.
        """
        choices = [model for kind in kinds for model in self.by_kind.get(kind, [])]
        if not choices:
            raise DoesNotFit(f"no model of {', '.join(kinds)}")
        choices = [model for model in choices if model.size[0] <= longest] or choices
        library = [model for model in choices if not isinstance(model.source, ProceduralSource)]
        procedural = [model for model in choices if isinstance(model.source, ProceduralSource)]
        if made or not library or (procedural and not self.chance(LIBRARY_SHARE)):
            choices = procedural or library
        else:
            choices = library
        model = choices[int(self.rng.integers(len(choices)))]
        overall = self.rng.uniform(0.94, 1.06)
        scale = tuple(float(overall * self.rng.uniform(0.96, 1.04)) for _ in range(3))
        return Piece(model, (0.0, 0.0, 0.0), 0.0, (scale[0], scale[1], scale[2]), self._tint(model))

    def along_wall(
        self,
        piece: Piece,
        walls: Sequence[int] | None = None,
        *,
        z: float | None = None,
        clear: float = 0.55,
        center: bool = False,
        corner: bool = False,
        away: float = GAP,
    ) -> Piece | None:
        """Place or hang a piece against a wall, its back to it.

        Args:
            walls: walls that may be tried; all in random order if left out.
            z: height of the underside; by default the model's own.
            clear: metres of free floor to keep in front.
            center: prefer the middle of the wall.
            corner: prefer the ends of the wall.
            away: distance from the wall.

        Returns:
            The piece in its place, or None.
        """
        order = list(self.rng.permutation(4)) if walls is None else list(walls)
        width, depth, _ = piece.size
        for wall in (int(w) for w in order):
            length = self.room.length(wall)
            if width > length - 2 * GAP:
                continue
            low, high = width / 2 + GAP, length - width / 2 - GAP
            spots = self.rng.uniform(low, high, 14)
            if center:
                spots = np.concatenate([[length / 2 + s for s in (0, 0.2, -0.2, 0.45, -0.45)], spots[:6]]).clip(
                    low, high
                )
            if corner:
                spots = np.concatenate([self.rng.permutation([low, high]), spots[:4]])
            for spot in spots:
                x, y = self.room.at_wall(wall, float(spot), depth / 2 + away)
                height = piece.model.elevation if z is None else z
                placed = moved(piece, (x, y, height), wall * np.pi / 2)
                if self.room.is_free(placed.box) and self._front_is_free(placed, wall, clear if height < 0.4 else 0):
                    self.room.pieces.append(placed)
                    return placed
        return None

    def need(self, piece: Piece | None) -> Piece:
        """Return the piece itself. Raises: DoesNotFit if it is None."""
        if piece is None:
            raise DoesNotFit(self.room.kind)
        return piece

    def wall_of(self, piece: Piece) -> int:
        """Return the wall that the back of a piece faces."""
        return round(piece.angle / (np.pi / 2)) % 4

    def door(self) -> None:
        """Place a door in any wall, with free floor before it."""
        piece = resized(self.pick("door"), depth=0.06)
        placed = self.need(self.along_wall(piece, z=0.0, clear=0.7, away=0.0))
        self.room.reserve_before(placed, self.wall_of(placed), 0.75)

    def window(self, curtains: float, small: bool = False) -> Piece | None:
        """Place a window, with a pair of curtains at some probability; tall pieces stay away from it."""
        piece = self.pick("window", longest=1.0 if small else 99)
        top = self.room.size[2] - 0.2
        height = min(piece.size[2], 1.0 if small else 1.5)
        piece = resized(piece, height=height, depth=0.09)
        z = min(float(self.rng.uniform(0.8, 1.0)) if not small else 1.3, top - height)
        with_curtains = self.chance(curtains)
        if with_curtains:
            rod = min(z + height + 0.12, self.room.size[2] - 0.03)
            panel = self.curtain(rod)
        for wall in self.rng.permutation(4):
            placed = self.along_wall(piece, [int(wall)], z=z, center=True, away=0.0)
            if placed is None:
                continue
            if with_curtains and not self.hang(placed, panel, rod):
                self.room.pieces.remove(placed)
                continue
            return placed
        return None

    def around(self, table: Piece, kinds: Sequence[str], count: int) -> int:
        """Place chairs of one model around a table, facing it, and return the number of chairs placed."""
        chair = self.pick(*kinds)
        w, d, _ = table.size
        chair_depth, reach = chair.size[1], 0.06
        sides = [(0, d / 2), (0, -d / 2), (w / 2, 0), (-w / 2, 0)]
        spots = []
        for dx, dy in sides:
            along = w if dx == 0 else d
            number = max(1, int(along / (chair.size[0] + 0.15)))
            offsets = (np.arange(number) - (number - 1) / 2) * along / number
            spots += [(dx, dy, float(o)) for o in offsets]
        order = spots if count >= len(spots) else [spots[i] for i in self.rng.permutation(len(spots))]
        placed = 0
        for dx, dy, offset in order:
            if placed == count:
                break
            out = chair_depth / 2 + reach + float(self.rng.uniform(0, 0.15))
            side = dx + np.sign(dx) * out + (offset if dx == 0 else 0)
            front = dy + np.sign(dy) * out + (offset if dy == 0 else 0)
            x, y = beside(table, side, front)
            # The chair's front looks back at the table.
            angle = float(np.arctan2(table.position[1] - y, table.position[0] - x) + np.pi / 2)
            angle = table.angle + round((angle - table.angle) / (np.pi / 2)) * np.pi / 2
            placed += self.room.put(moved(chair, (x, y, 0.0), angle + float(self.rng.uniform(-0.12, 0.12))))
        return placed

    def before(self, piece: Piece, other: Piece, distance: float, facing: bool, side: float = 0.0) -> Piece | None:
        """Place `other` in front of `piece`, facing it or in the same direction."""
        front = piece.size[1] / 2 + distance + other.size[1] / 2
        x, y = beside(piece, side, front)
        placed = moved(other, (x, y, 0.0), piece.angle + (np.pi if facing else 0.0))
        return placed if self.room.put(placed) else None

    def in_middle(self, piece: Piece, clear: float) -> Piece | None:
        """Place a piece near the room's middle, with free floor around it."""
        width, depth, _ = self.room.size
        for _ in range(12):
            x, y = width / 2 + self.rng.uniform(-0.2, 0.2) * width, depth / 2 + self.rng.uniform(-0.2, 0.2) * depth
            placed = moved(piece, (float(x), float(y), 0.0), float(self.rng.integers(0, 4)) * np.pi / 2)
            box = placed.box
            around = type(box)(
                (box.low[0] - clear, box.low[1] - clear, 0.0), (box.high[0] + clear, box.high[1] + clear, box.high[2])
            )
            if self.room.is_free(around):
                self.room.pieces.append(placed)
                return placed
        return None

    def pictures(self, count: int) -> None:
        """Hang pictures at eye height where the wall is free."""
        for _ in range(count):
            piece = self.pick("picture")
            self.along_wall(piece, z=float(self.rng.uniform(1.25, 1.5)), center=self.chance(0.5), away=0.005)

    def above(self, base: Piece, piece: Piece, z: float) -> Piece | None:
        """Hang a piece on the wall above another one."""
        wall = self.wall_of(base)
        along = base.position[0] if wall in (NORTH, SOUTH) else base.position[1]
        x, y = self.room.at_wall(wall, along, piece.size[1] / 2 + 0.005)
        placed = moved(piece, (x, y, z), wall * np.pi / 2)
        return placed if self.room.put(placed) else None

    def curtain(self, rod: float) -> Piece:
        """Pick a curtain that reaches from a rod at some height almost to the floor."""
        panel = self.pick("curtain")
        width = float(self.rng.uniform(0.4, 0.6))
        return resized(panel, width=width, depth=0.1, height=rod - float(self.rng.choice([0.04, 0.1])))

    def hang(self, window: Piece, panel: Piece, rod: float) -> bool:
        """Hang a curtain on either side of a window, both or none."""
        wall = self.wall_of(window)
        along = window.position[0] if wall in (NORTH, SOUTH) else window.position[1]
        panels = []
        for side in (-1, 1):
            offset = along + side * (window.size[0] / 2 + panel.size[0] * 0.42)
            x, y = self.room.at_wall(wall, offset, window.size[1] + GAP + panel.size[1] / 2 + 0.005)
            panels.append(moved(panel, (x, y, rod - panel.size[2]), wall * np.pi / 2))
        if not all(self.room.is_free(piece.box) for piece in panels):
            return False
        self.room.pieces += panels
        return True

    def _front_is_free(self, piece: Piece, wall: int, clear: float) -> bool:
        if clear <= 0:
            return True
        box = piece.box
        low, high = list(box.low), list(box.high)
        axis, sign = {NORTH: (1, -1), WEST: (0, 1), SOUTH: (1, 1), EAST: (0, -1)}[wall]
        if sign < 0:
            low[axis] -= clear
        else:
            high[axis] += clear
        high[2] = min(high[2], 0.8)
        front = type(box)((low[0], low[1], 0.0), (high[0], high[1], high[2]))
        return not any(front.overlaps(other.box) for other in self.room.pieces)

    def _tint(self, model: FurnitureModel) -> tuple[Vector, float] | None:
        if model.kind in KEEPS_COLOR or isinstance(model.source, ProceduralSource) or not self.chance(0.6):
            return None
        hue = self.rng.random() if self.chance(0.6) else self.rng.uniform(0.03, 0.13)
        return hsv(float(hue), float(self.rng.uniform(0.2, 0.8)), 0.9), float(self.rng.uniform(0.35, 0.95))


def moved(piece: Piece, position: Vector, angle: float) -> Piece:
    """Return the same piece at another position."""
    return Piece(piece.model, position, angle, piece.scale, piece.tint)


def resized(piece: Piece, width: float | None = None, depth: float | None = None, height: float | None = None) -> Piece:
    """Return the same piece with some of its sizes replaced, in metres."""
    wanted = (width, depth, height)
    scale = tuple(
        s if want is None else want / m for s, want, m in zip(piece.scale, wanted, piece.model.size, strict=True)
    )
    return Piece(piece.model, piece.position, piece.angle, (scale[0], scale[1], scale[2]), piece.tint)
