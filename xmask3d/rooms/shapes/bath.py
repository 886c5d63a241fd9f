"""Procedural toilets, wash basins and bathtubs.

Each function takes a style and a size (width, depth, height) in metres and returns a mesh roughly of that size,
standing on the floor around the origin, front facing -y.
"""

import numpy as np

from xmask3d.rooms import textures
from xmask3d.rooms.mesh import Mesh, box, lathe, merge, sheet
from xmask3d.rooms.shapes.parts import Size
from xmask3d.rooms.shapes.storage import storage
from xmask3d.rooms.style import Style


def toilet(style: Style, size: Size) -> Mesh:
    """Build a bowl on a foot, a seat with a lid, a cistern behind."""
    w, d, h = size
    white = style.white()
    lid = white if style.chance(0.7) else textures.hsv(0.08, style.between(0.3, 0.6), 0.5)
    rim, tank = style.between(0.38, 0.43), style.between(0.16, 0.2)
    reach = (d - tank) / 2
    y = d / 2 - tank - reach
    bowl = [(0.1, 0), (0.11, 0.1), (0.12, 0.2), (w * 0.44, rim - 0.06), (w * 0.46, rim)]
    seat = [(w * 0.22, rim), (w * 0.47, rim), (w * 0.48, rim + 0.025), (w * 0.24, rim + 0.03), (w * 0.22, rim - 0.12),
            (0, rim - 0.16)]  # fmt: skip
    parts = [
        lathe(bowl, white, 20, (1, reach / (w * 0.46))).moved((0, y, 0)),
        lathe(seat, lid, 20, (1, reach / (w * 0.48))).moved((0, y, 0)),
        box((-w / 2, d / 2 - tank, rim - 0.02), (w / 2, d / 2, h - 0.03), white),
        box((-w / 2 - 0.01, d / 2 - tank - 0.01, h - 0.03), (w / 2 + 0.01, d / 2, h), white),
        box((-0.1, d / 2 - tank - 0.05, 0), (0.1, d / 2 - 0.03, rim), white),
    ]
    if style.chance(0.5):
        # An open lid leans on the cistern.
        parts.append(
            box((-w * 0.44, d / 2 - tank - 0.04, rim + 0.03), (w * 0.44, d / 2 - tank - 0.015, rim + reach * 1.6), lid)
        )
    return merge(*parts)


def sink(style: Style, size: Size) -> Mesh:
    """Build a wash basin on a pedestal or a small cabinet, with a tap."""
    w, d, h = size
    white = style.white()
    bowl_height = style.between(0.16, 0.22)
    top = h - 0.12
    parts = [
        _basin(w, d, bowl_height, white).moved((0, 0, top - bowl_height)),
        _tap(style, 0.14).moved((0, d * 0.38, top - 0.02)),
    ]
    if style.chance(0.55):
        parts.append(
            lathe(
                [(0.12, 0), (0.09, 0.1), (0.08, top - bowl_height - 0.05), (0.14, top - bowl_height + 0.02)], white, 14
            ).moved((0, d * 0.15, 0))
        )
    else:
        parts.append(storage(style, (w * 0.9, d * 0.85, top - bowl_height), 1, 2, 0.04).moved((0, d * 0.06, 0)))
    return merge(*parts)


def counter_sink(style: Style, size: Size) -> Mesh:
    """Build a basin that sits on a worktop: steel or porcelain, with a tap."""
    w, d, h = size
    color = style.white() if style.chance(0.4) else textures.hsv(0.58, 0.04, style.between(0.55, 0.75))
    depth = 0.06 if style.chance(0.6) else 0.1
    return merge(_basin(w, d, depth, color), _tap(style, h - depth).moved((0, d * 0.38, depth - 0.01)))


def bathtub(style: Style, size: Size) -> Mesh:
    """Build a built-in tub with a straight apron, or a free-standing oval one; taps at one end."""
    w, d, h = size
    white = style.white()
    if style.chance(0.35):
        shell = [(0.62, 0), (0.75, 0.05), (0.9, h * 0.6), (1.0, h), (0.94, h), (0.8, h * 0.45), (0.6, h * 0.22),
                 (0, h * 0.2)]  # fmt: skip
        body = lathe([(r * w / 2, z) for r, z in shell], white, 28, (1, d / w))
        return merge(body, _tap(style, 0.2).moved((-w * 0.4, 0, h)))
    apron = white if style.chance(0.6) else textures.tiles(style.rng, style.paint((0.7, 0.95), (0.03, 0.4)), 4)
    rim = style.between(0.05, 0.09)
    inner = lathe([(0, h * 0.25), (0.72, h * 0.25), (0.85, h * 0.4), (1.0, h)], white, 28).scaled(
        (w / 2 - rim, d / 2 - rim, 1)
    )
    deck = _deck(w, d, w / 2 - rim, d / 2 - rim, h, white)
    sides = [
        box((-w / 2, -d / 2, 0), (w / 2, -d / 2 + 0.02, h), apron),
        box((-w / 2, d / 2 - 0.02, 0), (w / 2, d / 2, h), apron),
        box((-w / 2, -d / 2, 0), (-w / 2 + 0.02, d / 2, h), apron),
        box((w / 2 - 0.02, -d / 2, 0), (w / 2, d / 2, h), apron),
    ]
    return merge(inner, deck, *sides, _tap(style, 0.16).moved((-w / 2 + 0.06, 0, h)))


def _basin(w: float, d: float, h: float, color: tuple[float, float, float]) -> Mesh:
    """Build a rectangular block with an oval hollow, standing on z = 0."""
    radius_x, radius_y = w / 2 * 0.84, d / 2 * 0.74
    darker = tuple(0.88 * c for c in color)
    hollow = lathe([(0, h * 0.2), (0.6, h * 0.22), (0.9, h * 0.55), (1, h)], darker, 20).scaled((radius_x, radius_y, 1))
    sides = [box((-w / 2, y, 0), (w / 2, y + 0.01, h), color) for y in (-d / 2, d / 2 - 0.01)]
    sides += [box((x, -d / 2, 0), (x + 0.01, d / 2, h), color) for x in (-w / 2, w / 2 - 0.01)]
    return merge(hollow, _deck(w, d, radius_x, radius_y, h, color), *sides)


def _deck(w: float, d: float, radius_x: float, radius_y: float, h: float, color: tuple[float, float, float]) -> Mesh:
    """Build a flat rectangle at height h with an oval hole."""
    angle = np.linspace(0, 2 * np.pi, 29)
    oval = np.stack([np.cos(angle) * radius_x, np.sin(angle) * radius_y], -1)
    # The same angles on the rectangle's edge: each direction is extended until it hits a side.
    reach = 1 / np.maximum(np.abs(np.cos(angle)), np.abs(np.sin(angle)))
    edge = np.stack([np.cos(angle) * reach * w / 2, np.sin(angle) * reach * d / 2], -1)
    grid = np.stack([edge, oval])[::-1]
    return sheet(np.concatenate([grid, np.full((*grid.shape[:2], 1), h)], -1)[::-1], color)


def _tap(style: Style, height: float) -> Mesh:
    """Build a standing tap whose spout points to -y."""
    metal = textures.hsv(0.58, 0.03, 0.7)
    reach = style.between(0.1, 0.16)
    return merge(
        box((-0.014, -0.014, 0), (0.014, 0.014, height), metal),
        box((-0.012, -reach, height - 0.025), (0.012, 0.014, height), metal),
        box((-0.06, -0.01, 0), (0.06, 0.01, 0.03), metal),
    )
