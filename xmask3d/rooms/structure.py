"""Bare room: floor, walls, skirting, ceiling, a rug, and light."""

from dataclasses import dataclass
from itertools import pairwise

import numpy as np

from xmask3d.rooms import textures
from xmask3d.rooms.catalogue import CLASS_IDS
from xmask3d.rooms.layout import Room, Vector
from xmask3d.rooms.mesh import ByteArray, Mesh, box, merge, polygons
from xmask3d.rooms.render import Light, Renderer

UNLABELLED = 255
"""Label of objects without a class: ceilings and rugs, as in ScanNet's 20 classes."""

WET = ("bathroom", "kitchen")


@dataclass(frozen=True)
class BuiltRoom:
    """Room ready for rendering.

    Attributes:
        room: layout of the room.
        renderer: renderer of the meshes, in the order of `kinds`.
        kinds: kind of each instance, such as "armchair" or "wall".
    """

    room: Room
    renderer: Renderer
    kinds: tuple[str, ...]


def build_room(room: Room, rng: np.random.Generator) -> BuiltRoom:
    """Add floor, walls, ceiling and light to a furnished room."""
    parts = [
        ("floor", CLASS_IDS["floor"], floor(room, rng)),
        ("wall", CLASS_IDS["wall"], _walls(room, rng)),
        ("ceiling", UNLABELLED, _ceiling(room)),
    ]
    mat = rug(room, rng)
    if mat is not None:
        parts.append(("rug", UNLABELLED, mat))
    parts += [(piece.model.kind, piece.model.class_id, piece.mesh()) for piece in room.pieces]
    meshes, labels = [mesh for _, _, mesh in parts], [label for _, label, _ in parts]
    renderer = Renderer(meshes, labels, room_light(room, rng))
    return BuiltRoom(room, renderer, tuple(kind for kind, _, _ in parts))


def room_light(room: Room, rng: np.random.Generator) -> Light:
    """Choose daylight from a side and a lamp under the ceiling, in a random mix and warmth."""
    width, depth, height = room.size
    turn, tilt = rng.uniform(0, 2 * np.pi), rng.uniform(0.4, 1.1)
    warmth = rng.uniform(-0.05, 0.09)
    lamp = (width * float(rng.uniform(0.35, 0.65)), depth * float(rng.uniform(0.35, 0.65)), height - 0.25)
    return Light(
        ambient=float(rng.uniform(0.3, 0.45)),
        sun=(float(np.cos(turn) * np.cos(tilt)), float(np.sin(turn) * np.cos(tilt)), float(np.sin(tilt))),
        sun_strength=float(rng.uniform(0.25, 0.5)),
        lamp=lamp,
        lamp_strength=float(rng.uniform(0.25, 0.55)),
        tint=(1.0 + warmth, 1.0, 1.0 - 1.2 * warmth),
        shadows=True,
    )


def floor(room: Room, rng: np.random.Generator) -> Mesh:
    """Build a floor of tiles, planks or carpet."""
    w, d, _ = room.size
    gray = textures.hsv(rng.random(), rng.uniform(0, 0.15), rng.uniform(0.35, 0.85))
    if room.kind in WET or rng.random() < 0.15:
        image, texel = textures.tiles(rng, gray, chequered=rng.random() < 0.3), float(rng.uniform(0.5, 0.9))
    elif rng.random() < 0.65:
        wood = textures.hsv(rng.uniform(0.04, 0.12), rng.uniform(0.2, 0.65), rng.uniform(0.35, 0.8))
        image, texel = textures.planks(rng, wood), 0.6
    else:
        color = textures.hsv(rng.random(), rng.uniform(0.05, 0.4), rng.uniform(0.3, 0.75))
        image, texel = textures.carpet(rng, color), 0.8
    corners = [(0, 0, 0), (w, 0, 0), (w, d, 0), (0, d, 0)]
    if rng.random() < 0.5:
        corners = corners[1:] + corners[:1]
    return polygons([corners], image, texel)


def _walls(room: Room, rng: np.random.Generator) -> Mesh:
    color = textures.hsv(rng.random(), rng.uniform(0.02, 0.28), rng.uniform(0.68, 0.97))
    plain: ByteArray = textures.plaster(rng, color)
    image, texel = (plain, 1.5) if rng.random() < 0.75 else (textures.wallpaper(rng, color), 0.8)
    parts = []
    feature = int(rng.integers(0, 8))
    other = textures.plaster(rng, textures.hsv(rng.random(), rng.uniform(0.2, 0.6), rng.uniform(0.4, 0.85)))
    tiled = textures.tiles(rng, textures.hsv(rng.random(), rng.uniform(0.02, 0.3), rng.uniform(0.75, 0.97)), 4)
    for index, side in enumerate(wall_quads(room)):
        if room.kind == "bathroom":
            parts.append(polygons([side], tiled, 1.0))
        else:
            parts.append(polygons([side], other, 1.5) if index == feature else polygons([side], image, texel))
    if room.kind != "bathroom" and rng.random() < 0.7:
        parts.append(skirting(room, textures.hsv(0.08, 0.05, rng.uniform(0.5, 0.97))))
    return merge(*parts)


def wall_quads(room: Room) -> list[list[tuple[float, float, float]]]:
    """Return the corners of the four walls, from the floor on, so that wallpaper stands upright."""
    w, d, h = room.size
    corners = [(0.0, 0.0), (w, 0.0), (w, d), (0.0, d), (0.0, 0.0)]
    return [[(*b, 0.0), (*a, 0.0), (*a, h), (*b, h)] for a, b in pairwise(corners)]


def boards(room: Room, thick: float, low: float, high: float) -> list[tuple[Vector, Vector]]:
    """Return two corners of a board before each wall: y = 0, y = depth, x = 0, x = width."""
    w, d, _ = room.size
    return [
        ((0, 0, low), (w, thick, high)),
        ((0, d - thick, low), (w, d, high)),
        ((0, 0, low), (thick, d, high)),
        ((w - thick, 0, low), (w, d, high)),
    ]


def skirting(room: Room, color: Vector) -> Mesh:
    """Build a board along the foot of all walls."""
    thick, high = 0.012, 0.08
    made = [box(*corners, color) for corners in boards(room, thick, 0, high)]
    for block in room.blocks:
        low, up = np.array(block.low) - thick, np.array(block.high) + thick
        made.append(box((low[0], low[1], 0), (up[0], up[1], high), color))
    return merge(*made)


def _ceiling(room: Room) -> Mesh:
    w, d, h = room.size
    image = textures.plaster(np.random.default_rng(0), (0.95, 0.95, 0.94))
    return polygons([[(0, 0, h), (0, d, h), (w, d, h), (w, 0, h)]], image, 2.0)


def rug(room: Room, rng: np.random.Generator) -> Mesh | None:
    """Lay a thin rug near the middle, in half of the dry rooms."""
    if room.kind in WET or rng.random() < 0.5:
        return None
    w, d, _ = room.size
    size = rng.uniform([1.0, 0.8], [2.0, 1.5])
    middle = np.array([w, d]) / 2 + rng.uniform(-0.15, 0.15, 2) * [w, d]
    cloth = textures.cloth(rng, textures.hsv(rng.random(), rng.uniform(0.2, 0.7), rng.uniform(0.3, 0.8)))
    return box((*(middle - size / 2), 0.0), (*(middle + size / 2), 0.008), cloth, 0.7)
