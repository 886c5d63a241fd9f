"""Recipes of rooms: the furniture of a bedroom, a kitchen, a bathroom and so on, and its places."""

from collections.abc import Callable, Sequence

import numpy as np

from xmask3d.rooms.furniture import FurnitureModel
from xmask3d.rooms.layout import GAP, NORTH, SOUTH, DoesNotFit, Piece, Room
from xmask3d.rooms.planner import Planner, moved, resized

CYCLE = ("bedroom", "bathroom", "living room", "kitchen", "office", "dining room", "bedroom", "bathroom",
         "living room", "kitchen", "office", "kitchen")  # fmt: skip
"""Order of the kinds of rooms; any twelve consecutive rooms contain every class at least twice."""

ATTEMPTS = 40


def furnish(
    kind: str,
    models: Sequence[FurnitureModel],
    rng: np.random.Generator,
    shape: Callable[[Room, np.random.Generator], None] | None = None,
) -> Room:
    """Furnish a room of a given kind.

    Args:
        kind: one of `CYCLE`.
        models: furniture that may be used, which must include every kind that the recipe needs.
        shape: function that shapes the empty room, or None for a box.

    Raises:
        DoesNotFit: no attempt found places for all required pieces.
    """
    (low, high), recipe = RECIPES[kind]
    for attempt in range(ATTEMPTS):
        # A room that is too small for its furniture grows a little with every attempt.
        growth = 1 + 0.02 * attempt
        width, depth = (float(rng.uniform(low, high) * growth) for _ in range(2))
        room = Room(kind, (width, depth, float(rng.uniform(2.4, 2.8))))
        if shape is not None:
            shape(room, rng)
        try:
            recipe(Planner(room, models, rng))
        except DoesNotFit:
            continue
        return room
    raise DoesNotFit(f"no {kind} in {ATTEMPTS} attempts")


def bedroom(plan: Planner) -> None:
    """Place a bed against a wall, nightstands, a wardrobe, a window; often a desk, a bookshelf, an armchair."""
    plan.door()
    bed = plan.need(plan.along_wall(plan.pick("bed", "bunk bed"), center=True, clear=0.5))
    stand = plan.pick("nightstand")
    for side in (-1, 1):
        _flank(plan, bed, stand, side)
    plan.need(plan.window(curtains=0.9))
    plan.need(plan.along_wall(plan.pick("wardrobe", "cupboard"), corner=True))
    if bed.size[2] < 1.25:
        plan.above(bed, plan.pick("picture"), z=1.4)
    if plan.chance(0.7):
        _desk(plan)
    _some(plan, [("dresser", 0.5), ("bookshelf", 0.5), ("lamp", 0.4), ("armchair", 0.4), ("plant", 0.3)])
    plan.pictures(1)


def living_room(plan: Planner) -> None:
    """Place a sofa, a coffee table before it, armchairs, a bookshelf, a TV stand, plants, pictures, curtains."""
    plan.door()
    plan.need(plan.window(curtains=0.9))
    sofa = plan.need(plan.along_wall(plan.pick("sofa", "corner sofa"), center=True, clear=1.2))
    table = plan.need(plan.before(sofa, plan.pick("coffee table"), float(plan.rng.uniform(0.3, 0.5)), facing=True))
    chair = plan.pick("armchair")
    gap = float(plan.rng.uniform(0.35, 0.6))
    if plan.before(table, chair, gap, facing=True, side=float(plan.rng.uniform(-0.3, 0.3))) is None or plan.chance(0.4):
        plan.along_wall(plan.pick("armchair"), corner=True, clear=0.3)
    plan.need(plan.along_wall(plan.pick("bookshelf"), corner=True))
    if plan.chance(0.4):
        plan.along_wall(plan.pick("sofa", longest=2.0))
    plan.above(sofa, plan.pick("picture"), z=1.35)
    _some(plan, [("tv stand", 0.6), ("dresser", 0.4), ("lamp", 0.6), ("plant", 0.6), ("piano", 0.2),
                 ("bookshelf", 0.3), ("side table", 0.3)])  # fmt: skip
    plan.pictures(2)


def office(plan: Planner) -> None:
    """Place one or two desks with chairs, bookshelves, a filing cabinet, sometimes a sofa or a table with chairs."""
    plan.door()
    plan.need(plan.window(curtains=0.4))
    plan.need(_desk(plan))
    if plan.chance(0.5):
        _desk(plan)
    plan.need(plan.along_wall(plan.pick("bookshelf"), corner=True))
    if plan.chance(0.5):
        plan.along_wall(plan.pick("sofa", longest=2.0))
    elif plan.chance(0.5):
        table = plan.in_middle(plan.pick("dining table", "side table", longest=1.4), clear=0.8)
        if table is not None:
            plan.around(table, ["chair", "office chair"], int(plan.rng.integers(2, 5)))
    _some(plan, [("filing cabinet", 0.7), ("bookshelf", 0.6), ("cupboard", 0.3), ("wardrobe", 0.2), ("plant", 0.4),
                 ("trash can", 0.5), ("lamp", 0.3)])  # fmt: skip
    plan.pictures(2)


def dining_room(plan: Planner) -> None:
    """Place a table with chairs all around, a sideboard, perhaps a bar with stools."""
    plan.door()
    plan.need(plan.window(curtains=0.8))
    table = plan.need(plan.in_middle(resized(plan.pick("dining table"), height=0.75), clear=0.75))
    if plan.around(table, ["chair"], int(plan.rng.integers(4, 7))) < 3:
        raise DoesNotFit("chairs")
    plan.need(plan.along_wall(plan.pick("dresser", "cupboard")))
    if plan.chance(0.7):
        plan.along_wall(plan.pick("kitchen island"), clear=0.5)
    _some(plan, [("bookshelf", 0.5), ("plant", 0.5), ("lamp", 0.4), ("armchair", 0.3), ("piano", 0.2),
                 ("refrigerator", 0.3), ("bench", 0.2)])  # fmt: skip
    plan.pictures(3)


def kitchen(plan: Planner) -> None:
    """Place cabinets under a counter with a sink, a cooker, a refrigerator, wall cabinets; a table or an island."""
    wall = int(plan.rng.integers(0, 4))
    _kitchen_row(plan, wall)
    plan.door()
    plan.window(curtains=0.4)
    if plan.chance(0.45):
        plan.in_middle(plan.pick("kitchen island"), clear=0.6)
    else:
        table = plan.in_middle(resized(plan.pick("dining table", longest=1.5), height=0.75), clear=0.65)
        if table is not None:
            plan.around(table, ["chair"], int(plan.rng.integers(2, 5)))
    _some(plan, [("tall cabinet", 0.4), ("bar chair", 0.4), ("trash can", 0.5), ("plant", 0.3), ("stool", 0.3),
                 ("washing machine", 0.3)])  # fmt: skip
    plan.pictures(1)


def bathroom(plan: Planner) -> None:
    """Place a bathtub with a shower curtain, a toilet, a wash basin with a mirror."""
    tub = plan.need(plan.along_wall(plan.pick("bathtub"), corner=True, clear=0.5))
    _shower_curtain(plan, tub)
    plan.door()
    plan.need(plan.along_wall(plan.pick("toilet"), clear=0.45))
    sink = plan.need(plan.along_wall(plan.pick("sink", "wall sink", longest=1.0), clear=0.45))
    plan.above(sink, plan.pick("mirror"), z=1.35 if sink.position[2] + sink.size[2] < 1.3 else 1.75)
    if plan.chance(0.7):
        plan.window(curtains=0.0, small=True)
    _some(plan, [("washing machine", 0.5), ("trash can", 0.4), ("stool", 0.2), ("cupboard", 0.2), ("dresser", 0.2)])
    if plan.chance(0.3):
        plan.pictures(1)


def _some(plan: Planner, wishes: Sequence[tuple[str, float]]) -> None:
    """Place furniture along the walls, each at its probability, in random order; kinds without models are left out."""
    for index in plan.rng.permutation(len(wishes)):
        kind, probability = wishes[int(index)]
        if plan.chance(probability) and plan.by_kind.get(kind):
            plan.along_wall(plan.pick(kind), corner=kind in ("plant", "lamp", "trash can", "bookshelf"), clear=0.35)


def _desk(plan: Planner) -> Piece | None:
    """Place a desk at a wall and a chair that faces it."""
    desk = plan.along_wall(plan.pick("desk", longest=2.0), clear=0.9)
    if desk is not None:
        chair = plan.pick("office chair", "chair")
        distance = float(plan.rng.uniform(0.06, 0.2))
        plan.before(desk, chair, distance, facing=True, side=float(plan.rng.uniform(-0.15, 0.15)))
    return desk


def _flank(plan: Planner, base: Piece, piece: Piece, side: int) -> None:
    """Place a piece at the same wall, right beside another one."""
    wall = plan.wall_of(base)
    along = base.position[0] if wall in (NORTH, SOUTH) else base.position[1]
    offset = along + side * (base.size[0] / 2 + piece.size[0] / 2 + 0.04)
    x, y = plan.room.at_wall(wall, offset, piece.size[1] / 2 + GAP)
    plan.room.put(moved(piece, (x, y, 0.0), base.angle))


def _shower_curtain(plan: Planner, tub: Piece) -> None:
    """Hang a curtain along the outer edge of a bathtub, drawn part of the way."""
    curtain = plan.pick("shower curtain")
    width = tub.size[0] * float(plan.rng.uniform(0.4, 0.6))
    z = 0.12
    height = min(curtain.size[2], plan.room.size[2] - z - 0.1)
    curtain = resized(curtain, width=width, height=height, depth=0.12)
    wall = plan.wall_of(tub)
    along = tub.position[0] if wall in (NORTH, SOUTH) else tub.position[1]
    for side in plan.rng.permutation([-1, 1]):
        offset = along + int(side) * (tub.size[0] - width) / 2
        x, y = plan.room.at_wall(wall, offset, tub.size[1] + 2 * GAP + curtain.size[1] / 2 + 0.005)
        if plan.room.put(moved(curtain, (x, y, z), tub.angle)):
            return
    raise DoesNotFit("shower curtain")


def _kitchen_row(plan: Planner, wall: int) -> None:
    """Place base units side by side from one corner, worktops over neighbours, a refrigerator at the end."""
    depth, top = 0.6, 0.86
    counter = resized(plan.pick("counter"), depth=depth + 0.03)
    stove = plan.pick("stove")
    units: list[Piece] = [plan.pick("refrigerator")]
    base = plan.pick("kitchen cabinet")
    count = max(3, min(5, int((plan.room.length(wall) - units[0].size[0] - 0.7) / 0.62)))
    stove_at = int(plan.rng.integers(1, count))
    for i in range(count):
        unit = base if plan.chance(0.5) else resized(plan.pick("kitchen cabinet"), width=0.6)
        unit = resized(unit, depth=depth, height=top)
        units.append(resized(stove, width=0.6, depth=depth, height=top + 0.04) if i == stove_at else unit)
    flip = plan.chance(0.5)
    start = GAP
    runs: list[list] = [[]]
    for unit in units:
        placed = _in_row(plan, wall, unit, start, flip)
        start += unit.size[0] + GAP + 0.001
        if unit.size[2] == units[0].size[2] or unit.model is stove.model:
            runs.append([])
        else:
            runs[-1].append(placed)
    longest = max(runs, key=lambda run: sum(unit.size[0] for unit in run))
    for run in runs:
        if run:
            _worktop(plan, wall, run, counter, top, sink=run is longest)


def _in_row(plan: Planner, wall: int, unit: Piece, start: float, flip: bool) -> Piece:
    """Place a unit at a wall, `start` metres from its end."""
    along = start + unit.size[0] / 2
    if flip:
        along = plan.room.length(wall) - along
    x, y = plan.room.at_wall(wall, along, unit.size[1] / 2 + GAP)
    placed = moved(unit, (x, y, 0.0), wall * np.pi / 2)
    if not plan.room.put(placed):
        raise DoesNotFit("kitchen row")
    return placed


def _worktop(plan: Planner, wall: int, run: Sequence[Piece], counter: Piece, top: float, sink: bool) -> None:
    """Place a counter over neighbouring base units, a sink on it, wall cabinets above."""
    axis = 0 if wall in (NORTH, SOUTH) else 1
    low, high = min(unit.box.low[axis] for unit in run), max(unit.box.high[axis] for unit in run)
    slab = resized(counter, width=high - low)
    x, y = plan.room.at_wall(wall, (low + high) / 2, slab.size[1] / 2 + 0.005)
    if not plan.room.put(moved(slab, (x, y, top + GAP), wall * np.pi / 2)):
        raise DoesNotFit("counter")
    if sink:
        # It is inside the worktop's box, whose upper part is only the splash-back.
        basin = resized(plan.pick("counter sink"), width=min(0.6, (high - low) * 0.7), depth=0.44)
        x, y = plan.room.at_wall(
            wall, (low + high) / 2 + float(plan.rng.uniform(-0.2, 0.2)) * (high - low - basin.size[0]), 0.33
        )
        plan.room.pieces.append(moved(basin, (x, y, top + GAP + 0.055), wall * np.pi / 2))
    hanging = plan.pick("wall cabinet")
    for unit in run:
        if plan.chance(0.85):
            cabinet = resized(hanging, width=unit.size[0], depth=0.34, height=0.65)
            plan.above(unit, cabinet, z=1.48)


RECIPES: dict[str, tuple[tuple[float, float], Callable[[Planner], None]]] = {
    "bedroom": ((3.3, 4.6), bedroom),
    "living room": ((4.0, 5.6), living_room),
    "office": ((3.2, 4.6), office),
    "dining room": ((3.6, 5.0), dining_room),
    "kitchen": ((3.4, 4.6), kitchen),
    "bathroom": ((2.3, 3.2), bathroom),
}
"""Kind of room -> range of its side lengths in metres, and its recipe."""
