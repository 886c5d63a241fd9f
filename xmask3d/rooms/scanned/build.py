"""Preparation of furnished rooms for the camera: shell, furniture, objects on walls and tops, light, the outside."""

import numpy as np

from xmask3d.rooms.layout import Piece, Room, box_of
from xmask3d.rooms.mesh import Mesh
from xmask3d.rooms.render import Renderer
from xmask3d.rooms.scanned import pictures, things
from xmask3d.rooms.scanned.clutter import scatter
from xmask3d.rooms.scanned.film import ScannedRoom, Sunbeam, Surfaces
from xmask3d.rooms.scanned.furnishing import UNITS, Paint, television_place
from xmask3d.rooms.scanned.settings import ScanSettings
from xmask3d.rooms.scanned.shell import shell
from xmask3d.rooms.scanned.walls import Part, ceiling_lamp, decorate
from xmask3d.rooms.structure import UNLABELLED, room_light

SHINE = {
    "mirror": 1.0, "refrigerator": 0.4, "stove": 0.4, "counter sink": 0.6, "sink": 0.15, "wall sink": 0.15,
    "bathtub": 0.2, "toilet": 0.15, "washing machine": 0.2, "counter": 0.15, "picture": 0.25, "piano": 0.3,
}  # fmt: skip
"""Shine of furniture by kind; bare metal always shines."""

METAL_SHINE = 0.5
PANE_FACES = 2
"""The first two triangles of a procedural window are its pane."""


def build_scanned(room: Room, settings: ScanSettings, rng: np.random.Generator) -> ScannedRoom:
    """Add everything but the camera to a furnished room."""
    bare = shell(room, settings.tiles, rng)
    paint = Paint(room, settings.unit_color, rng)
    pieces = [
        Part(piece.model.kind, piece.model.class_id, paint.mesh(piece), SHINE.get(piece.model.kind, 0.0))
        for piece in room.pieces
    ]
    decoration = decorate(room, settings.wall_things, rng)
    screens = _television(room, rng)
    taken = [box_of(part.mesh) for part in [*decoration, *screens]]
    dropped = scatter(room, [*(part.mesh for part in pieces), bare[0].mesh], taken, settings.clutter, rng)
    light = room_light(room, rng)
    assert light.lamp is not None
    lamp = ceiling_lamp(room, light.lamp, rng)
    small = [Part("clutter", UNLABELLED, mesh) for mesh in dropped]
    parts = [*bare, *pieces, *decoration, *screens, *small, lamp]
    renderer = Renderer([part.mesh for part in parts], [part.label for part in parts], light)
    return ScannedRoom(
        room,
        renderer,
        tuple(part.kind for part in parts),
        _surfaces(parts),
        pictures.outside(rng),
        float(rng.uniform(*settings.outside)),
        _beam(room, settings.sunbeam, rng),
    )


def _television(room: Room, rng: np.random.Generator) -> list[Part]:
    """Place a television on the low stand, and keep its space free of clutter."""
    stand = television_place(room)
    if stand is None:
        return []
    mesh = things.television(rng)
    mesh = mesh.scaled(min(1.0, stand.size[0] / float(mesh.extent[0])))
    x, y, z = stand.position
    return [Part("television", UNLABELLED, mesh.turned(stand.angle).moved((x, y, z + stand.size[2])), 0.5)]


def _surfaces(parts: list[Part]) -> Surfaces:
    outside = [np.arange(len(part.mesh.faces)) < (PANE_FACES if part.kind == "window" else 0) for part in parts]
    # Painted units may have a single grey, but are no metal.
    shine = [np.maximum(_metal(part.mesh) * (part.kind not in UNITS), part.shine) for part in parts]
    return Surfaces(np.concatenate(outside), np.concatenate(shine).astype(np.float32))


def _metal(mesh: Mesh) -> np.ndarray:
    """Return the shine of faces that look like bare metal: one grey of medium brightness."""
    metal = []
    for image in mesh.textures:
        color = image.reshape(-1, 3).mean(0) / 255
        gray = np.ptp(color) < 0.08 and 0.3 < color.mean() < 0.8
        metal.append(METAL_SHINE if image.size == 3 and gray else 0.0)
    return np.array([*metal, 0.0])[mesh.texture]


def _beam(room: Room, probability: float, rng: np.random.Generator) -> Sunbeam | None:
    """Let the sun shine in through one of the windows."""
    windows = [piece for piece in room.pieces if piece.model.kind == "window"]
    if not windows or rng.random() >= probability:
        return None
    window: Piece = windows[int(rng.integers(len(windows)))]
    # A window's front, which faces the room, is rotated from -y by its angle.
    outward = np.array([-np.sin(window.angle), np.cos(window.angle)])
    turn, rise = float(rng.uniform(-0.9, 0.9)), float(rng.uniform(0.3, 0.9))
    c, s = np.cos(turn), np.sin(turn)
    level = np.array([c * outward[0] - s * outward[1], s * outward[0] + c * outward[1]]) * np.cos(rise)
    axis = int(np.argmax(np.abs(outward)))
    box, other = window.box, 1 - axis
    return Sunbeam(
        (float(level[0]), float(level[1]), float(np.sin(rise))),
        axis,
        float(window.position[axis]),
        (box.low[other], box.low[2]),
        (box.high[other], box.high[2]),
        float(rng.uniform(0.8, 2.5)),
    )
