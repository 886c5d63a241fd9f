"""Procedural beds, chairs, sofas, tables, desks and lamps.

Each function takes a style and a size (width, depth, height) in metres and returns a mesh roughly of that size,
standing on the floor around the origin, front facing -y.
"""

import numpy as np

from xmask3d.rooms import textures
from xmask3d.rooms.mesh import Mesh, box, lathe, merge
from xmask3d.rooms.shapes.parts import Size, cushion, legs
from xmask3d.rooms.shapes.storage import storage
from xmask3d.rooms.style import Style


def bed(style: Style, size: Size) -> Mesh:
    """Build a bed: frame, mattress, blanket, pillows and a headboard at the back (+y)."""
    w, d, h = size
    frame, linen, blanket = style.wood(), style.white(), style.cloth()
    base, top = style.between(0.2, 0.34), style.between(0.45, 0.6)
    board = style.cloth() if style.chance(0.35) else frame
    parts = [
        box((-w / 2, -d / 2, 0.08), (w / 2, d / 2 - 0.06, base), frame),
        *legs(w, d, 0.08, 0.08, frame),
        box((-w / 2, d / 2 - 0.07, 0.0), (w / 2, d / 2, h), board),
        box((-w / 2 + 0.03, -d / 2 + 0.03, base), (w / 2 - 0.03, d / 2 - 0.07, top), linen),
        box(
            (-w / 2 + 0.005, -d / 2 + 0.015, base + 0.03),
            (w / 2 - 0.005, style.between(-0.1, 0.45), top + 0.035),
            blanket,
        ),
    ]
    pillows = 1 if w < 1.25 else 2
    for i in range(pillows):
        x = (i - (pillows - 1) / 2) * w / pillows
        parts.append(
            cushion((0.62 * w / pillows + 0.08, 0.4, 0.14), linen if style.chance(0.6) else style.cloth()).moved(
                (x, d / 2 - 0.32, top + 0.02)
            )
        )
    return merge(*parts)


def chair(style: Style, size: Size) -> Mesh:
    """Build a chair: four legs, a seat, a back of slats or a panel."""
    w, d, h = size
    wood, seat_height = style.wood(), style.between(0.43, 0.48)
    leg = style.between(0.03, 0.05)
    seat = style.cloth() if style.chance(0.5) else wood
    parts = [
        *legs(w, d, seat_height - 0.03, leg, wood),
        box((-w / 2, -d / 2, seat_height - 0.04), (w / 2, d / 2, seat_height + 0.02), seat),
    ]
    for x in (-w / 2, w / 2 - leg):
        parts.append(box((x, d / 2 - leg, seat_height), (x + leg, d / 2, h), wood))
    if style.chance(0.4):
        parts.append(box((-w / 2, d / 2 - leg, seat_height + 0.12), (w / 2, d / 2 - 0.01, h), seat))
    else:
        slats = style.count(2, 4)
        for i in range(slats):
            z = seat_height + 0.12 + (h - seat_height - 0.14) * i / slats
            parts.append(
                box((-w / 2, d / 2 - leg * 0.8, z), (w / 2, d / 2 - 0.008, z + style.between(0.06, 0.09)), wood)
            )
    return merge(*parts)


def office_chair(style: Style, size: Size) -> Mesh:
    """Build an office chair: a five-star foot, a column, an upholstered seat and back, armrests."""
    w, d, h = size
    cloth, metal = style.cloth(), style.metal()
    seat = style.between(0.44, 0.52)
    parts = [lathe([(0.03, 0.06), (0.03, seat - 0.04)], metal, 8)]
    for i in range(5):
        parts.append(box((-0.025, -d / 2, 0.03), (0.025, 0, 0.08), metal).turned(i * 2 * np.pi / 5))
    parts += [
        cushion((w * 0.82, d * 0.8, 0.1), cloth).moved((0, -0.02, seat - 0.05)),
        cushion((w * 0.75, 0.09, h - seat - 0.1), cloth).moved((0, d * 0.36, seat + 0.1)),
    ]
    for side in (-1, 1):
        x = side * w * 0.45
        parts += [
            box((x - 0.025, -d * 0.2, seat + 0.18), (x + 0.025, d * 0.3, seat + 0.22), metal),
            box((x - 0.015, 0.0, seat), (x + 0.015, 0.03, seat + 0.2), metal),
        ]
    return merge(*parts)


def sofa(style: Style, size: Size) -> Mesh:
    """Build a sofa: arms, back, seat cushions and some throw cushions on short legs."""
    w, d, h = size
    cloth, leg = style.cloth(), style.between(0.04, 0.14)
    arm, seat = style.between(0.1, 0.24), style.between(0.38, 0.46)
    arm_height = style.between(0.5, 0.66)
    parts = [
        *legs(w, d, leg, 0.06, style.wood()),
        box((-w / 2, -d / 2, leg), (w / 2, d / 2, seat - 0.12), cloth),
        box((-w / 2, d / 2 - 0.18, leg), (w / 2, d / 2, h), cloth),
        box((-w / 2, -d / 2, leg), (-w / 2 + arm, d / 2, arm_height), cloth),
        box((w / 2 - arm, -d / 2, leg), (w / 2, d / 2, arm_height), cloth),
    ]
    places = max(1, round((w - 2 * arm) / 0.65))
    width = (w - 2 * arm) / places
    for i in range(places):
        x = -w / 2 + arm + (i + 0.5) * width
        parts += [
            cushion((width - 0.01, d - 0.2, 0.16), cloth).moved((x, -0.09, seat - 0.14)),
            cushion((width - 0.02, 0.16, h - seat - 0.02), cloth).moved((x, d / 2 - 0.25, seat)),
        ]
    if style.chance(0.5) and places > 1:
        parts.append(cushion((0.4, 0.14, 0.36), style.cloth()).moved((-w / 2 + arm + 0.24, d / 2 - 0.4, seat)))
    return merge(*parts)


def table(style: Style, size: Size) -> Mesh:
    """Build a top on four legs, or a round top on a foot."""
    w, d, h = size
    wood, thick = style.wood(), style.between(0.025, 0.05)
    if style.chance(0.25):
        top = lathe([(0, h - thick), (w / 2, h - thick), (w / 2, h), (0, h)], wood, 24, (1, d / w))
        foot = lathe([(0.28, 0), (0.28, 0.03), (0.05, 0.06), (0.05, h - thick)], style.metal(), 16)
        return merge(top, foot)
    frame = style.metal() if style.chance(0.35) else wood
    inset = style.between(0.0, 0.08)
    return merge(
        box((-w / 2, -d / 2, h - thick), (w / 2, d / 2, h), wood),
        *legs(w - inset, d - inset, h - thick, style.between(0.04, 0.09), frame),
        box((-w / 2 + 0.06, -d / 2 + 0.06, h - thick - 0.07), (w / 2 - 0.06, d / 2 - 0.06, h - thick), frame),
    )


def coffee_table(style: Style, size: Size) -> Mesh:
    """Build a low table, often with a shelf below."""
    w, d, _ = size
    parts = [table(style, size)]
    if style.chance(0.5):
        parts.append(box((-w / 2 + 0.06, -d / 2 + 0.06, 0.1), (w / 2 - 0.06, d / 2 - 0.06, 0.13), style.wood()))
    return merge(*parts)


def desk(style: Style, size: Size) -> Mesh:
    """Build a desk: a top, drawers on one or both sides, a modesty panel, and a screen, keyboard or papers."""
    w, d, h = size
    wood, thick = style.wood(), 0.03
    block = style.between(0.34, 0.42)
    pedestal = storage(style, (block, d - 0.06, h - thick), 3, 1, 0.03)
    parts = [
        box((-w / 2, -d / 2, h - thick), (w / 2, d / 2, h), wood),
        pedestal.moved((w / 2 - block / 2, 0, 0)),
        box((-w / 2, d / 2 - 0.05, h * 0.35), (w / 2, d / 2 - 0.03, h - thick), wood),
    ]
    if style.chance(0.4) and w > 1.3:
        parts.append(pedestal.moved((-w / 2 + block / 2, 0, 0)))
    else:
        parts.append(box((-w / 2, -d / 2 + 0.04, 0), (-w / 2 + 0.035, d / 2 - 0.03, h - thick), wood))
    return merge(*parts)


def lamp(style: Style, size: Size) -> Mesh:
    """Build a floor lamp: foot, rod, shade."""
    w, _, h = size
    metal = style.metal()
    foot = lathe([(0.14, 0), (0.14, 0.02), (0.013, 0.03), (0.013, h - 0.25)], metal, 12)
    shade = lathe(
        [(w / 2, h - 0.32), (w / 2 * style.between(0.5, 0.95), h)],
        textures.cloth(style.rng, style.paint((0.8, 1), (0.05, 0.4))),
        20,
    )
    return merge(foot, shade)
