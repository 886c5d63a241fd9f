"""Furniture of rooms that look like scans: painted kitchens, low TV stands, curtains beside windows."""

from collections.abc import Sequence
from dataclasses import replace

import numpy as np

from xmask3d.rooms import textures
from xmask3d.rooms.furniture import FurnitureModel, made_model
from xmask3d.rooms.layout import Piece, Room
from xmask3d.rooms.mesh import ByteArray, Mesh, to_bytes
from xmask3d.rooms.planner import Planner, moved, resized
from xmask3d.rooms.procedural import ProceduralSource
from xmask3d.rooms.room_types import furnish
from xmask3d.rooms.scanned.settings import ScanSettings
from xmask3d.rooms.scanned.shape import shape_room
from xmask3d.rooms.style import Style

UNITS = ("kitchen cabinet", "wall cabinet", "tall cabinet", "kitchen island")
SILL = 0.05
"""Height of the lower edge of a window that reaches down to the floor, metres."""

LOW_STANDS = 12
"""Low TV stands of each split."""


def furnish_scanned(
    kind: str, split: str, models: Sequence[FurnitureModel], settings: ScanSettings, rng: np.random.Generator
) -> Room:
    """Furnish a room of any shape. Args: kind: one of `CYCLE`; split: "train" or "val", of the models made by rule."""
    # Only procedural windows are used, since their panes are known and can show the outside.
    usable = [model for model in models if model.kind != "window" or isinstance(model.source, ProceduralSource)]
    room = furnish(kind, usable, rng, lambda empty, draws: shape_room(empty, settings, draws))
    plan = Planner(room, [*usable, *low_stands(split)], rng)
    if kind in ("living room", "bedroom") and plan.chance(settings.low_stand):
        plan.along_wall(plan.pick("low tv stand"), center=True, clear=0.4)
    room.pieces = [replace(piece, tint=None) if plan.chance(settings.natural) else piece for piece in room.pieces]
    room.pieces = [_to_the_floor(piece, plan, settings.tall_windows) for piece in room.pieces]
    windows = [piece for piece in room.pieces if piece.model.kind == "window"]
    curtains = [piece for piece in room.pieces if piece.model.kind == "curtain"]
    if windows and not curtains and plan.chance(settings.curtains):
        window = windows[0]
        rod = min(window.position[2] + window.size[2] + 0.12, room.size[2] - 0.03)
        plan.hang(window, plan.curtain(rod), rod)
    return room


def _to_the_floor(piece: Piece, plan: Planner, probability: float) -> Piece:
    """Extend a window down to the floor if nothing is in front of it; return other pieces unchanged."""
    if piece.model.kind != "window" or not plan.chance(probability):
        return piece
    x, y, z = piece.position
    tall = moved(resized(piece, height=z + piece.size[2] - SILL), (x, y, SILL), piece.angle)
    return tall if plan.room.is_free(tall.box, ignore=[piece]) else piece


def low_stands(split: str) -> list[FurnitureModel]:
    """Return procedural low TV stands, which differ between the splits."""
    kind, models = "low tv stand", []
    for variant in range(LOW_STANDS):
        style = Style(np.random.default_rng([variant, 7, *kind.encode(), *split.encode()]), split)
        size = (style.between(1.0, 2.2), style.between(0.35, 0.5), style.between(0.28, 0.55))
        models.append(made_model(ProceduralSource(kind, split, 0, variant), size))
    return models


class Paint:
    """Common colours of a kitchen's units and worktops.

    Args:
        probability: probability that they have.
    """

    def __init__(self, room: Room, probability: float, rng: np.random.Generator) -> None:
        self.used = room.kind in ("kitchen", "dining room") and rng.random() < probability
        strong = rng.random() < 0.55
        value = rng.uniform(0.25, 0.9) if strong else rng.choice([0.08, 0.5, 0.85, 0.97])
        self.units = textures.hsv(rng.random(), rng.uniform(0.35, 0.95) if strong else rng.uniform(0, 0.12), value)
        wooden = rng.random() < 0.4
        tone = textures.hsv(rng.uniform(0.04, 0.12), rng.uniform(0.3, 0.7), rng.uniform(0.3, 0.85))
        gray = textures.hsv(rng.random(), rng.uniform(0, 0.1), rng.choice([0.08, 0.2, 0.6, 0.95]))
        self.top = textures.wood(rng, tone) if wooden else textures.stone(rng, gray)

    def mesh(self, piece: Piece) -> Mesh:
        """Return a piece's mesh in the room's frame, painted if it is a kitchen's."""
        mesh = piece.mesh()
        if not self.used or piece.model.kind not in (*UNITS, "counter"):
            return mesh
        if piece.model.kind == "counter":
            mesh.textures = [self.top for _ in mesh.textures]
            return mesh
        shares = np.bincount(mesh.texture, mesh.areas(), len(mesh.textures)) / max(float(mesh.areas().sum()), 1e-9)
        # Handles and knobs are small and keep their metal.
        mesh.textures = [
            _painted(image, self.units) if share > 0.06 else image
            for image, share in zip(mesh.textures, shares, strict=True)
        ]
        return mesh


def _painted(image: ByteArray, color: tuple[float, float, float]) -> ByteArray:
    """Return a texture in another colour, with half of its own contrast."""
    gray = image.astype(np.float64).mean(-1, keepdims=True)
    shade = 0.5 + 0.5 * gray / max(float(gray.mean()), 1.0)
    return to_bytes(np.asarray(color) * shade)


def television_place(room: Room) -> Piece | None:
    """Return the low stand for a television, if the room has one."""
    return next((piece for piece in room.pieces if piece.model.kind == "low tv stand"), None)
