"""Procedural doors, windows, curtains, pictures and mirrors: everything in or on a wall.

Each function takes a style and a size (width, depth, height) in metres and returns a mesh roughly of that size,
standing on the floor around the origin, front facing -y.
"""

import numpy as np

from xmask3d.rooms import textures
from xmask3d.rooms.mesh import ByteArray, Mesh, box, merge, pane, polygons, sheet
from xmask3d.rooms.shapes.parts import Size
from xmask3d.rooms.style import Style


def door(style: Style, size: Size) -> Mesh:
    """Build a door: a leaf in a frame, with panels or a pane and a handle."""
    w, d, h = size
    leaf, frame = style.wood(), style.wood() if style.chance(0.4) else style.white()
    trim, front = 0.07, -d / 2 + 0.02
    parts = [
        box((-w / 2, -d / 2, 0), (-w / 2 + trim, d / 2, h), frame),
        box((w / 2 - trim, -d / 2, 0), (w / 2, d / 2, h), frame),
        box((-w / 2, -d / 2, h - trim), (w / 2, d / 2, h), frame),
        box((-w / 2 + trim, front, 0), (w / 2 - trim, d / 2, h - trim), leaf),
    ]
    for row in range(style.count(0, 3)):
        low = 0.18 + row * (h - 0.35) / 3
        parts.append(
            box((-w / 2 + trim + 0.1, front - 0.01, low), (w / 2 - trim - 0.1, front, low + (h - 0.5) / 3), leaf)
        )
    parts.append(
        box((w / 2 - trim - 0.16, front - 0.05, 1.0), (w / 2 - trim - 0.04, front - 0.02, 1.03), style.metal())
    )
    return merge(*parts)


def window(style: Style, size: Size) -> Mesh:
    """Build a window: a frame with mullions before a bright view, and a sill."""
    w, d, h = size
    frame = style.white() if style.chance(0.7) else style.wood()
    bar = style.between(0.045, 0.07)
    pane = polygons(
        [[(-w / 2, 0, 0), (w / 2, 0, 0), (w / 2, 0, h), (-w / 2, 0, h)]], textures.outdoors(style.rng), max(w, h)
    )
    columns, rows = style.count(1, 3) if w > 1.2 else style.count(1, 2), style.count(1, 2)
    xs = np.linspace(-w / 2, w / 2 - bar, columns + 1)
    zs = np.linspace(0, h - bar, rows + 1)
    parts = [pane, box((-w / 2 - 0.03, -d / 2, -0.03), (w / 2 + 0.03, d / 2, 0.01), frame)]
    parts += [box((x, -d / 2 + 0.03, 0), (x + bar, d / 2, h), frame) for x in xs]
    parts += [box((-w / 2, -d / 2 + 0.03, z), (w / 2, d / 2, z + bar), frame) for z in zs]
    return merge(*parts)


def picture(style: Style, size: Size) -> Mesh:
    """Build a painting in a frame, sometimes with a mount."""
    w, d, h = size
    rim, mount = style.between(0.02, 0.06), style.between(0.0, 0.08)
    frame = style.wood() if style.chance(0.6) else style.metal()
    canvas = textures.painting(style.rng)
    x, z = w / 2 - rim - mount, rim + mount
    return merge(
        box((-w / 2, -d / 4, 0), (w / 2, d / 2, h), style.white()),
        pane(x, -d / 4 - 0.004, z, h - z, canvas),  # filled by a single painting, whatever its shape
        *[box((x0, -d / 2, 0), (x0 + rim, d / 2, h), frame) for x0 in (-w / 2, w / 2 - rim)],
        *[box((-w / 2, -d / 2, z0), (w / 2, d / 2, z0 + rim), frame) for z0 in (0, h - rim)],
    )


def mirror(style: Style, size: Size) -> Mesh:
    """Build a pale pane in a frame."""
    w, d, h = size
    return merge(
        box((-w / 2, -d / 4, 0), (w / 2, d / 2, h), style.metal()),
        box((-w / 2 + 0.03, -d / 2, 0.03), (w / 2 - 0.03, -d / 4, h - 0.03), (0.72, 0.78, 0.82)),
    )


def curtain(style: Style, size: Size) -> Mesh:
    """Build a curtain: pleated cloth that hangs from a rod."""
    w, _, h = size
    waves = style.between(9, 14) * w
    return merge(
        _drape(style, size, waves, style.cloth(), flare=1.15),
        box((-w / 2 - 0.08, -0.012, h - 0.025), (w / 2 + 0.08, 0.012, h), style.metal()),
    )


def shower_curtain(style: Style, size: Size) -> Mesh:
    """Build a shower curtain: thin cloth with broad folds, rings and a rod; white, pastel or printed."""
    w, d, h = size
    cloth = (
        textures.cloth(style.rng, style.white())
        if style.chance(0.4)
        else textures.tiles(style.rng, style.paint((0.75, 0.98), (0.08, 0.4)), 4)
    )
    rings = [
        box((x - 0.012, -0.02, h - 0.07), (x + 0.012, 0.02, h), style.metal())
        for x in np.linspace(-w / 2 + 0.03, w / 2 - 0.03, 9)
    ]
    rod = box((-w / 2 - 0.05, -0.014, h - 0.02), (w / 2 + 0.05, 0.014, h + 0.008), style.metal())
    return merge(_drape(style, (w, d, h - 0.05), style.between(4, 6) * w, cloth, flare=1.0), rod, *rings)


def _drape(style: Style, size: Size, waves: float, image: ByteArray, flare: float) -> Mesh:
    """Build a wavy sheet w x h whose folds are d deep; `flare` widens the folds towards the floor."""
    w, d, h = size
    columns, rows = max(24, int(waves * 6)), 5
    u = np.linspace(0, 1, columns)
    v = np.linspace(0, 1, rows)[:, None]
    phase = style.between(0, 6.28)
    drift = style.between(0.2, 0.8) * np.sin(3 * u + phase)
    depth = (
        d
        / 2
        * (0.75 + 0.25 * np.sin(5 * u + phase))
        * np.sin(2 * np.pi * waves * u + drift)
        * (0.7 + 0.3 * flare * (1 - v))
    )
    grid = np.stack(
        [np.broadcast_to((u - 0.5) * w, (rows, columns)), depth, np.broadcast_to(v * h, (rows, columns))], -1
    )
    return sheet(grid, image, texel_size=0.5)
