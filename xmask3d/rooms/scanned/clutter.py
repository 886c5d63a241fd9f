"""Clutter: small objects dropped onto tops, seats and floors where they lie flat."""

from collections.abc import Mapping, Sequence

import numpy as np

from xmask3d.rooms.layout import Box, Room
from xmask3d.rooms.mesh import Mesh
from xmask3d.rooms.render import Renderer
from xmask3d.rooms.scanned import things
from xmask3d.rooms.scanned.shape import ceiling_height, in_block
from xmask3d.rooms.scanned.things import Maker

_TOP: tuple[Maker, ...] = (
    things.books,
    things.cup,
    things.bottle,
    things.bowl,
    things.package,
    things.papers,
    things.vase,
)
_DESK: tuple[Maker, ...] = (things.monitor, things.laptop, things.papers, things.books, things.cup, things.table_lamp)
_KITCHEN: tuple[Maker, ...] = (
    things.appliance,
    things.bottle,
    things.cup,
    things.bowl,
    things.package,
    things.toiletries,
)
_SOFT: tuple[Maker, ...] = (things.cushion, things.clothes, things.books, things.bag, things.laptop)

ON: Mapping[str, tuple[float, tuple[Maker, ...]]] = {
    "desk": (4.0, _DESK),
    "dining table": (3.5, _TOP),
    "coffee table": (3.0, _TOP),
    "side table": (1.5, _TOP),
    "nightstand": (1.5, (things.table_lamp, things.books, things.cup, things.bottle)),
    "dresser": (3.0, (*_TOP, things.table_lamp)),
    "cupboard": (1.5, (things.package, things.basket, things.vase)),
    "wardrobe": (1.0, (things.package, things.bag, things.basket)),
    "filing cabinet": (1.5, (*_TOP, things.table_lamp)),
    "bookshelf": (1.0, (things.package, things.vase, things.books)),
    "counter": (5.0, _KITCHEN),
    "kitchen island": (3.0, _KITCHEN),
    "refrigerator": (1.0, (things.package, things.basket, things.appliance)),
    "washing machine": (1.5, (things.basket, things.clothes, things.toiletries)),
    "bed": (2.5, _SOFT),
    "sofa": (2.0, _SOFT),
    "corner sofa": (2.5, _SOFT),
    "armchair": (0.5, (things.cushion, things.clothes)),
    "chair": (0.25, (things.clothes, things.bag)),
    "bench": (0.7, (things.bag, things.clothes, things.books)),
    "bathtub": (0.5, (things.toiletries,)),
    "sink": (0.7, (things.toiletries, things.cup)),
    "toilet": (0.5, (things.toiletries, things.books)),
    "piano": (1.0, (things.books, things.vase)),
    "low tv stand": (1.5, (*_TOP, things.appliance)),
}
"""Kind of furniture -> mean number of objects on a piece, and the kinds of objects."""

FLOOR: tuple[Maker, ...] = (
    things.bag, things.shoes, things.package, things.basket, things.ball, things.clothes, things.books, things.cushion,
)  # fmt: skip
FLOOR_THINGS = 3.0
"""Mean number of things on the floor of a room."""

FLAT = 0.03
"""Largest difference in height under the corners of an object, in metres."""

TRIES = 6


def scatter(
    room: Room, pieces: Sequence[Mesh], taken: Sequence[Box], amount: float, rng: np.random.Generator
) -> list[Mesh]:
    """Drop things on furniture and floor.

    Args:
        pieces: mesh of each piece of the room, then the floor's.
        taken: space occupied by other objects.
        amount: number of things, relative to the usual.
    """
    if amount <= 0:
        return []
    ground = Renderer(pieces)
    placed: list[Mesh] = []
    boxes = list(taken)
    for index, piece in enumerate(room.pieces):
        mean, makers = ON.get(piece.model.kind, (0.0, ()))
        for _ in range(int(rng.poisson(mean * amount)) if makers else 0):
            thing = makers[int(rng.integers(len(makers)))](rng).turned(_angle(piece.angle, rng))
            for _ in range(TRIES):
                low, high = np.array(piece.box.low), np.array(piece.box.high)
                place = rng.uniform(low[:2], high[:2])
                if _drop(thing, place, float(high[2]) + 0.3, ground, index, room, placed, boxes):
                    break
    for _ in range(int(rng.poisson(FLOOR_THINGS * amount))):
        thing = FLOOR[int(rng.integers(len(FLOOR)))](rng).turned(float(rng.uniform(0, 6.28)))
        for _ in range(TRIES):
            if _drop(
                thing, rng.uniform(0.1, 0.9, 2) * room.size[:2], 0.9, ground, len(room.pieces), room, placed, boxes
            ):
                break
    return placed


def _angle(base: float, rng: np.random.Generator) -> float:
    """Align most objects with the furniture under them, and rotate the rest at random."""
    return base + float(rng.normal(0, 0.2) if rng.random() < 0.7 else rng.uniform(0, 6.28))


def _drop(
    thing: Mesh, place: np.ndarray, start: float, ground: Renderer, support: int, room: Room,
    placed: list[Mesh], boxes: list[Box],
) -> bool:  # fmt: skip
    """Drop an object from a height; keep it if its underside rests on a single support without other objects."""
    low, high = thing.bounds[0][:2] + place, thing.bounds[1][:2] + place
    if (
        (low < 0.02).any()
        or (high > np.array(room.size[:2]) - 0.02).any()
        or in_block(room, float(place[0]), float(place[1]), 0.15)
    ):
        return False
    inner = 0.15 * (high - low)
    corners = [(x, y) for x in (low[0] + inner[0], high[0] - inner[0]) for y in (low[1] + inner[1], high[1] - inner[1])]
    middle = (float(place[0]), float(place[1]))
    origins = np.array([(*corner, start) for corner in [*corners, middle]], np.float32)
    hits = ground.rays.cast(origins, np.tile(np.array([0, 0, -1], np.float32), (5, 1)), colored=False)
    if (hits.face < 0).any() or (ground.face_instance[hits.face] != support).any() or np.ptp(hits.distance) > FLAT:
        return False
    z = start - float(hits.distance.min())
    tall = float(thing.bounds[1][2])
    if z + tall > min(ceiling_height(room, *corner) for corner in corners) - 0.02:
        return False
    box = Box((float(low[0]), float(low[1]), z + 0.01), (float(high[0]), float(high[1]), z + tall))
    if any(box.overlaps(other) for other in boxes):
        return False
    if any(box.overlaps(other.box) for index, other in enumerate(room.pieces) if index != support):
        return False
    placed.append(thing.moved((*place, z)))
    boxes.append(box)
    return True
