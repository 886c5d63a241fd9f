"""Things on walls: switches, sockets, posters, shelves with things on them, radiators, towels, clocks, screens."""

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np

from xmask3d.rooms import textures
from xmask3d.rooms.catalogue import CLASS_IDS
from xmask3d.rooms.layout import Room, box_of
from xmask3d.rooms.mesh import Mesh, box, lathe, merge, pane, sheet
from xmask3d.rooms.scanned import pictures, things
from xmask3d.rooms.structure import UNLABELLED

AWAY = 0.004
"""Metres between a wall and objects on it."""


@dataclass(frozen=True)
class Part:
    """Mesh of an object of the room with its kind and class id; `shine` of all of its faces."""

    kind: str
    label: int
    mesh: Mesh
    shine: float = 0.0


@dataclass(frozen=True)
class WallSide:
    """Side of a wall: a foot point, the direction along it, and the angle of objects on it, which face the room."""

    foot: tuple[float, float]
    along: tuple[float, float]
    length: float
    angle: float


def wall_sides(room: Room) -> Iterator[WallSide]:
    """Return all sides of walls that face the room."""
    width, depth, _ = room.size
    yield WallSide((0.0, depth), (1.0, 0.0), width, 0.0)
    yield WallSide((0.0, 0.0), (0.0, 1.0), depth, np.pi / 2)
    yield WallSide((0.0, 0.0), (1.0, 0.0), width, np.pi)
    yield WallSide((width, 0.0), (0.0, 1.0), depth, -np.pi / 2)
    for block in room.blocks:
        (x0, y0, _), (x1, y1, _) = block.low, block.high
        if y0 > 0.01:
            yield WallSide((x0, y0), (1.0, 0.0), x1 - x0, 0.0)
        if x1 < width - 0.01:
            yield WallSide((x1, y0), (0.0, 1.0), y1 - y0, np.pi / 2)
        if y1 < depth - 0.01:
            yield WallSide((x0, y1), (1.0, 0.0), x1 - x0, np.pi)
        if x0 > 0.01:
            yield WallSide((x0, y0), (0.0, 1.0), y1 - y0, -np.pi / 2)


def decorate(room: Room, amount: float, rng: np.random.Generator) -> list[Part]:
    """Hang objects on free parts of the walls; each reserves its space."""
    sides = list(wall_sides(room))
    wet = room.kind in ("bathroom", "kitchen")
    wishes: list[tuple[float, str, tuple[float, float]]] = [
        (2.5, "switch", (1.02, 1.12)),
        (3.0, "socket", (0.22, 0.32)),
        (0.6 if wet else 2.2, "poster", (0.95, 1.5)),
        (0.8, "shelf", (1.25, 1.7)),
        (0.8, "radiator", (0.1, 0.16)),
        (0.3, "clock", (1.7, 2.0)),
        (2.0 if room.kind == "bathroom" else 0.5 if wet else 0.4, "towel", (0.9, 1.3)),
        (0.0 if wet else 0.25, "television", (0.9, 1.2)),
    ]
    parts: list[Part] = []
    for mean, name, heights in wishes:
        for _ in range(int(rng.poisson(mean * amount))):
            made = _MAKERS[name](rng)
            for _ in range(5):
                side, z = sides[int(rng.integers(len(sides)))], float(rng.uniform(*heights))
                hung = _hung(room, side, made[0].mesh, z, rng)
                if hung is not None:
                    angle, offset = hung
                    parts += [Part(p.kind, p.label, p.mesh.turned(angle).moved(offset), p.shine) for p in made]
                    break
    return parts


def _hung(
    room: Room, side: WallSide, mesh: Mesh, z: float, rng: np.random.Generator
) -> tuple[float, tuple[float, float, float]] | None:
    """Return the angle and the offset that hang a mesh at a free place of a wall, and reserve the place."""
    (low, high) = mesh.bounds
    half = float(high[0] - low[0]) / 2
    if side.length < 2 * half + 0.1:
        return None
    spot = float(rng.uniform(half + 0.05, side.length - half - 0.05))
    x, y = side.foot[0] + side.along[0] * spot, side.foot[1] + side.along[1] * spot
    inward = np.array([np.sin(side.angle), -np.cos(side.angle)])
    back = float(high[1]) + AWAY
    offset = (float(x + inward[0] * back), float(y + inward[1] * back), z)
    space = box_of(mesh.turned(side.angle).moved(offset))
    if not room.is_free(space):
        return None
    room.reserved.append(space)
    return side.angle, offset


def _plate(rng: np.random.Generator, kind: str) -> list[Part]:
    side, count = 0.08, int(rng.integers(1, 3))
    white = textures.hsv(0.1, 0.03, rng.uniform(0.85, 1))
    mesh = box((-side * count / 2, -0.01, 0), (side * count / 2, 0, side), white)
    inset = (0.25, 0.25, 0.25) if kind == "socket" else textures.hsv(0.1, 0.03, 0.75)
    middles = (np.arange(count) - (count - 1) / 2) * side
    pads = [box((x - 0.022, -0.013, 0.02), (x + 0.022, -0.01, 0.06), inset) for x in middles]
    return [Part(kind, UNLABELLED, merge(mesh, *pads))]


def _poster(rng: np.random.Generator) -> list[Part]:
    w, h = float(rng.uniform(0.2, 0.75)), float(rng.uniform(0.25, 1.0))
    return [Part("picture", CLASS_IDS["picture"], pane(w / 2, -0.002, 0, h, pictures.poster(rng)))]


def _shelf(rng: np.random.Generator) -> list[Part]:
    w, d = float(rng.uniform(0.5, 1.2)), float(rng.uniform(0.16, 0.26))
    wood = textures.wood(rng, textures.hsv(rng.uniform(0.05, 0.1), rng.uniform(0, 0.6), rng.uniform(0.3, 0.95)))
    meshes, z = [], 0.0
    for _ in range(int(rng.integers(1, 3))):
        meshes.append(box((-w / 2, -d, z), (w / 2, 0, z + 0.022), wood))
        x = -w / 2 + 0.08
        while x < w / 2 - 0.1:
            maker = (things.books, things.vase, things.bottle, things.cup, things.bowl)[int(rng.integers(5))]
            thing = maker(rng)
            across, tall = float(thing.extent[0]), float(thing.extent[2])
            scale = min(1.0, 0.27 / tall, (d - 0.02) / float(thing.extent[1]))
            meshes.append(thing.standing().scaled(scale).moved((x + across * scale / 2, -d / 2, z + 0.022)))
            x += across * scale + float(rng.uniform(0.02, 0.2))
        z += 0.33
    return [Part("shelf", UNLABELLED, merge(*meshes))]


def _radiator(rng: np.random.Generator) -> list[Part]:
    w, h = float(rng.uniform(0.5, 1.3)), float(rng.uniform(0.45, 0.65))
    white = textures.hsv(0.1, 0.02, rng.uniform(0.8, 1))
    ribs = [box((x, -0.1, 0), (x + 0.045, -0.03, h), white) for x in np.arange(-w / 2, w / 2 - 0.04, 0.065)]
    pipe = box((-w / 2, -0.08, 0.04), (w / 2, -0.05, 0.07), white)
    back = box((-w / 2, -0.05, h - 0.07), (w / 2, 0, h - 0.04), white)
    return [Part("radiator", CLASS_IDS["otherfurniture"], merge(*ribs, pipe, back))]


def _clock(rng: np.random.Generator) -> list[Part]:
    r = float(rng.uniform(0.1, 0.17))
    angle = np.linspace(0, 2 * np.pi, 17)
    rings = [(0.0, -0.03), (r * 0.9, -0.03), (r, -0.035), (r, 0.0)]
    grid = [[(np.cos(a) * x, y, r + np.sin(a) * x) for a in angle] for x, y in rings]
    face = textures.hsv(rng.random(), rng.uniform(0, 0.3), rng.uniform(0.7, 1))
    hand = box((-0.006, -0.033, r), (0.006, -0.031, r * 1.7), (0.05, 0.05, 0.05))
    return [Part("clock", UNLABELLED, merge(sheet(grid, face), hand))]


def _towel(rng: np.random.Generator) -> list[Part]:
    w, h = float(rng.uniform(0.3, 0.6)), float(rng.uniform(0.45, 0.9))
    u, v = np.linspace(0, 1, 13), np.linspace(0, 1, 4)[:, None]
    depth = -0.05 - 0.02 * np.sin(u * rng.uniform(8, 20)) * (1 - v)
    grid = np.stack([np.broadcast_to((u - 0.5) * w, (4, 13)), depth, np.broadcast_to(v * h, (4, 13))], -1)
    cloth = textures.cloth(rng, textures.hsv(rng.random(), rng.uniform(0, 0.7), rng.uniform(0.3, 1)))
    rail = box((-w / 2 - 0.03, -0.06, h - 0.02), (w / 2 + 0.03, 0, h), (0.6, 0.6, 0.62))
    return [Part("towel", UNLABELLED, merge(sheet(grid, cloth, 0.3), rail))]


def _television(rng: np.random.Generator) -> list[Part]:
    return [Part("television", UNLABELLED, things.television(rng).moved((0, 0, -0.06)), 0.5)]


def ceiling_lamp(room: Room, lamp: tuple[float, float, float], rng: np.random.Generator) -> Part:
    """Build a lamp under the ceiling: a dome, or a shade on a cord."""
    x, y, _ = lamp
    h, r = room.size[2], float(rng.uniform(0.14, 0.25))
    white = textures.hsv(0.12, rng.uniform(0, 0.2), 1.0)
    if rng.random() < 0.5:
        mesh = lathe([(0, -0.1), (r * 0.7, -0.07), (r, 0)], white, 16)
    else:
        drop = float(rng.uniform(0.3, 0.6))
        mesh = merge(
            lathe([(r, -drop - 0.2), (r * 0.4, -drop)], white, 16),
            box((-0.006, -0.006, -drop), (0.006, 0.006, 0), (0.1, 0.1, 0.1)),
        )
    return Part("ceiling lamp", UNLABELLED, mesh.moved((x, y, h)))


_MAKERS = {
    "switch": lambda rng: _plate(rng, "switch"),
    "socket": lambda rng: _plate(rng, "socket"),
    "poster": _poster,
    "shelf": _shelf,
    "radiator": _radiator,
    "clock": _clock,
    "towel": _towel,
    "television": _television,
}
