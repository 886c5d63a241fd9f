"""Bare rooms of any shape: floor, walls with tiles and skirting, ceilings with slopes, a rug."""

import numpy as np

from xmask3d.rooms import structure, textures
from xmask3d.rooms.catalogue import CLASS_IDS
from xmask3d.rooms.layout import Room
from xmask3d.rooms.mesh import ByteArray, Mesh, box, merge, polygons
from xmask3d.rooms.scanned.shape import block_meshes, slope_mesh
from xmask3d.rooms.scanned.walls import Part
from xmask3d.rooms.structure import UNLABELLED

WHITE_WALLS = 0.55
"""Share of rooms with white or nearly white walls."""


def shell(room: Room, tiles: float, rng: np.random.Generator) -> list[Part]:
    """Build floor, walls, ceiling and perhaps a rug. Args: tiles: probability of tiles on parts of wet rooms' walls."""
    parts = [
        Part("floor", CLASS_IDS["floor"], structure.floor(room, rng), float(rng.choice([0.0, 0.15]))),
        Part("wall", CLASS_IDS["wall"], _walls(room, tiles, rng)),
        Part("ceiling", UNLABELLED, _ceiling(room, rng)),
    ]
    rug = structure.rug(room, rng)
    return parts if rug is None else [*parts, Part("rug", UNLABELLED, rug)]


def _walls(room: Room, tiles: float, rng: np.random.Generator) -> Mesh:
    if rng.random() < WHITE_WALLS:
        color = textures.hsv(rng.uniform(0.05, 0.6), rng.uniform(0, 0.08), rng.uniform(0.82, 1))
    else:
        color = textures.hsv(rng.random(), rng.uniform(0.05, 0.45), rng.uniform(0.45, 0.95))
    image, texel = (textures.plaster(rng, color), 1.5) if rng.random() < 0.85 else (textures.wallpaper(rng, color), 0.8)
    other = textures.plaster(rng, textures.hsv(rng.random(), rng.uniform(0.1, 0.6), rng.uniform(0.3, 0.9)))
    feature = int(rng.integers(0, 10))
    parts = []
    for index, side in enumerate(structure.wall_quads(room)):
        parts.append(polygons([side], other, 1.5) if index == feature else polygons([side], image, texel))
    parts += block_meshes(room, image, texel)
    if room.kind in structure.WET and rng.random() < tiles:
        parts.append(_tiles(room, rng))
    if room.kind != "bathroom" and rng.random() < 0.7:
        parts.append(structure.skirting(room, textures.hsv(0.08, 0.05, rng.uniform(0.5, 0.97))))
    return merge(*parts)


def _tiles(room: Room, rng: np.random.Generator) -> Mesh:
    """Build tiles on the walls: a strip above a kitchen's worktop, or the lower part or all of a bathroom's walls."""
    kitchen = room.kind == "kitchen"
    low = float(rng.uniform(0.8, 0.9)) if kitchen else 0.0
    high = float(rng.uniform(1.35, 1.6)) if kitchen else float(rng.choice([1.2, 2.0, room.size[2] - 0.01]))
    color = textures.hsv(rng.random(), rng.choice([0.03, 0.1, 0.5]), rng.uniform(0.5, 0.98))
    image = textures.tiles(rng, color, int(rng.choice([2, 4])), chequered=rng.random() < 0.15)
    texel = float(rng.uniform(0.35, 0.9))
    walls = [0, 1, 2, 3] if not kitchen else [int(i) for i in rng.permutation(4)[: int(rng.integers(1, 5))]]
    boards = structure.boards(room, 0.006, low, high)
    return merge(*(box(*boards[wall], image, texel) for wall in walls))


def _ceiling(room: Room, rng: np.random.Generator) -> Mesh:
    w, d, h = room.size
    image: ByteArray = textures.plaster(rng, textures.hsv(0.1, rng.uniform(0, 0.05), rng.uniform(0.85, 1)))
    if rng.random() < 0.1:
        image = textures.planks(rng, textures.hsv(0.08, rng.uniform(0.2, 0.5), rng.uniform(0.5, 0.8)))
    flat = polygons([[(0, 0, h), (0, d, h), (w, d, h), (w, 0, h)]], image, 2.0)
    return merge(flat, *slope_mesh(room, image))
