"""Builders of procedural furniture, one function a kind.

Each takes a style and a size (width, depth, height) in metres and returns a mesh roughly of that size, standing on the
floor around the origin, front facing -y.
"""

from collections.abc import Callable

import numpy as np

from xmask3d.data.rooms import textures
from xmask3d.data.rooms.mesh import ByteArray, Mesh, box, lathe, merge, polygons, sheet
from xmask3d.data.rooms.style import Style

Size = tuple[float, float, float]


def storage(style: Style, size: Size, rows: int, columns: int, plinth: float = 0.06) -> Mesh:
    """A body with doors or drawers, each with a handle."""
    w, d, h = size
    body, front = style.wood(), style.wood()
    if style.chance(0.5):
        front = body
    metal, gap, thick = style.metal(), 0.008, 0.02
    parts = [
        box((-w / 2, -d / 2 + thick, plinth), (w / 2, d / 2, h), body),
        box((-w / 2 + 0.02, -d / 2 + 0.06, 0), (w / 2 - 0.02, d / 2, plinth), (0.15, 0.14, 0.13)),
    ]
    cell_w, cell_h = w / columns, (h - plinth) / rows
    wide_handles = cell_h < 0.45
    for row in range(rows):
        for column in range(columns):
            x0, z0 = -w / 2 + column * cell_w, plinth + row * cell_h
            parts.append(
                box((x0 + gap, -d / 2, z0 + gap), (x0 + cell_w - gap, -d / 2 + thick, z0 + cell_h - gap), front)
            )
            if wide_handles:
                x, z, half_w, half_h = x0 + cell_w / 2, z0 + cell_h * 0.7, min(0.09, cell_w / 4), 0.009
            else:
                side = 0.88 if column % 2 == 0 else 0.12
                x, z, half_w, half_h = x0 + cell_w * side, z0 + cell_h * 0.55, 0.009, 0.08
            parts.append(box((x - half_w, -d / 2 - 0.025, z - half_h), (x + half_w, -d / 2, z + half_h), metal))
    return merge(parts)


def wardrobe(style: Style, size: Size) -> Mesh:
    """Tall doors side by side."""
    return storage(style, size, rows=1, columns=max(2, round(size[0] / 0.5)))


def dresser(style: Style, size: Size) -> Mesh:
    """Drawers in one or two columns."""
    return storage(style, size, rows=style.count(3, 4), columns=1 if size[0] < 0.95 else 2)


def filing_cabinet(style: Style, size: Size) -> Mesh:
    """Drawers above each other."""
    return storage(style, size, rows=max(2, round(size[2] / 0.32)), columns=1, plinth=0.03)


def kitchen_cabinet(style: Style, size: Size) -> Mesh:
    """One or two doors, or drawers, over a plinth."""
    drawers = style.chance(0.3)
    return storage(style, size, rows=3 if drawers else 1, columns=1 if drawers or size[0] < 0.62 else 2, plinth=0.1)


def wall_cabinet(style: Style, size: Size) -> Mesh:
    """One or two doors."""
    return storage(style, size, rows=1, columns=1 if size[0] < 0.62 else 2, plinth=0.0)


def nightstand(style: Style, size: Size) -> Mesh:
    """A small chest, or a drawer on legs."""
    w, d, h = size
    if style.chance(0.5):
        return storage(style, size, rows=2, columns=1, plinth=0.03)
    return merge(
        [
            storage(style, (w, d, h * 0.45), 1, 1, 0.0).moved((0, 0, h * 0.55)),
            *_legs(w, d, h * 0.55, 0.035, style.wood()),
        ]
    )


def bed(style: Style, size: Size) -> Mesh:
    """Frame, mattress, blanket, pillows and a headboard at the back (+y)."""
    w, d, h = size
    frame, linen, blanket = style.wood(), style.white(), style.cloth()
    base, top = style.between(0.2, 0.34), style.between(0.45, 0.6)
    board = style.cloth() if style.chance(0.35) else frame
    parts = [
        box((-w / 2, -d / 2, 0.08), (w / 2, d / 2 - 0.06, base), frame),
        *_legs(w, d, 0.08, 0.08, frame),
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
            _cushion((0.62 * w / pillows + 0.08, 0.4, 0.14), linen if style.chance(0.6) else style.cloth()).moved(
                (x, d / 2 - 0.32, top + 0.02)
            )
        )
    return merge(parts)


def chair(style: Style, size: Size) -> Mesh:
    """Four legs, a seat, a back of slats or a panel."""
    w, d, h = size
    wood, seat_height = style.wood(), style.between(0.43, 0.48)
    leg = style.between(0.03, 0.05)
    seat = style.cloth() if style.chance(0.5) else wood
    parts = [
        *_legs(w, d, seat_height - 0.03, leg, wood),
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
    return merge(parts)


def office_chair(style: Style, size: Size) -> Mesh:
    """A five-star foot, a column, an upholstered seat and back, armrests."""
    w, d, h = size
    cloth, metal = style.cloth(), style.metal()
    seat = style.between(0.44, 0.52)
    parts = [lathe([(0.03, 0.06), (0.03, seat - 0.04)], metal, 8)]
    for i in range(5):
        parts.append(box((-0.025, -d / 2, 0.03), (0.025, 0, 0.08), metal).turned(i * 2 * np.pi / 5))
    parts += [
        _cushion((w * 0.82, d * 0.8, 0.1), cloth).moved((0, -0.02, seat - 0.05)),
        _cushion((w * 0.75, 0.09, h - seat - 0.1), cloth).moved((0, d * 0.36, seat + 0.1)),
    ]
    for side in (-1, 1):
        x = side * w * 0.45
        parts += [
            box((x - 0.025, -d * 0.2, seat + 0.18), (x + 0.025, d * 0.3, seat + 0.22), metal),
            box((x - 0.015, 0.0, seat), (x + 0.015, 0.03, seat + 0.2), metal),
        ]
    return merge(parts)


def sofa(style: Style, size: Size) -> Mesh:
    """Arms, back, seat cushions and some throw cushions on short legs."""
    w, d, h = size
    cloth, leg = style.cloth(), style.between(0.04, 0.14)
    arm, seat = style.between(0.1, 0.24), style.between(0.38, 0.46)
    arm_height = style.between(0.5, 0.66)
    parts = [
        *_legs(w, d, leg, 0.06, style.wood()),
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
            _cushion((width - 0.01, d - 0.2, 0.16), cloth).moved((x, -0.09, seat - 0.14)),
            _cushion((width - 0.02, 0.16, h - seat - 0.02), cloth).moved((x, d / 2 - 0.25, seat)),
        ]
    if style.chance(0.5) and places > 1:
        parts.append(_cushion((0.4, 0.14, 0.36), style.cloth()).moved((-w / 2 + arm + 0.24, d / 2 - 0.4, seat)))
    return merge(parts)


def table(style: Style, size: Size) -> Mesh:
    """A top on four legs, or a round top on a foot."""
    w, d, h = size
    wood, thick = style.wood(), style.between(0.025, 0.05)
    if style.chance(0.25):
        top = lathe([(0, h - thick), (w / 2, h - thick), (w / 2, h), (0, h)], wood, 24, (1, d / w))
        foot = lathe([(0.28, 0), (0.28, 0.03), (0.05, 0.06), (0.05, h - thick)], style.metal(), 16)
        return merge([top, foot])
    legs = style.metal() if style.chance(0.35) else wood
    inset = style.between(0.0, 0.08)
    return merge(
        [
            box((-w / 2, -d / 2, h - thick), (w / 2, d / 2, h), wood),
            *_legs(w - inset, d - inset, h - thick, style.between(0.04, 0.09), legs),
            box((-w / 2 + 0.06, -d / 2 + 0.06, h - thick - 0.07), (w / 2 - 0.06, d / 2 - 0.06, h - thick), legs),
        ]
    )


def coffee_table(style: Style, size: Size) -> Mesh:
    """A low table, often with a shelf below."""
    w, d, _ = size
    parts = [table(style, size)]
    if style.chance(0.5):
        parts.append(box((-w / 2 + 0.06, -d / 2 + 0.06, 0.1), (w / 2 - 0.06, d / 2 - 0.06, 0.13), style.wood()))
    return merge(parts)


def desk(style: Style, size: Size) -> Mesh:
    """A top with drawers on one or both sides, a modesty panel, and a screen, keyboard or papers on it."""
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
    return merge(parts)


def door(style: Style, size: Size) -> Mesh:
    """A leaf in a frame, with panels or a pane and a handle."""
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
    return merge(parts)


def window(style: Style, size: Size) -> Mesh:
    """A frame with mullions before a bright view, and a sill."""
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
    return merge(parts)


def bookshelf(style: Style, size: Size) -> Mesh:
    """An open case of shelves with rows of books."""
    w, d, h = size
    wood, board = style.wood(), 0.025
    shelves = max(3, round(h / style.between(0.3, 0.4)))
    columns = 1 if w < 1.0 else 2
    parts = [
        box((-w / 2, -d / 2, 0), (-w / 2 + board, d / 2, h), wood),
        box((w / 2 - board, -d / 2, 0), (w / 2, d / 2, h), wood),
        box((-w / 2, d / 2 - 0.015, 0), (w / 2, d / 2, h), wood),
    ]
    parts += [
        box((-w / 2, -d / 2, z), (w / 2, d / 2, z + board), wood) for z in np.linspace(0.03, h - board, shelves + 1)
    ]
    if columns == 2:
        parts.append(box((-board / 2, -d / 2, 0), (board / 2, d / 2, h), wood))
    step = (h - board - 0.03) / shelves
    for shelf in range(shelves):
        parts += _books(style, -w / 2 + board, w / 2 - board, d, 0.03 + shelf * step + board, step - board)
    return merge(parts)


def picture(style: Style, size: Size) -> Mesh:
    """A painting in a frame, sometimes with a mount."""
    w, d, h = size
    rim, mount = style.between(0.02, 0.06), style.between(0.0, 0.08)
    frame = style.wood() if style.chance(0.6) else style.metal()
    image = textures.painting(style.rng)
    x, z = w / 2 - rim - mount, rim + mount
    canvas = polygons(
        [[(-x, -d / 4 - 0.004, z), (x, -d / 4 - 0.004, z), (x, -d / 4 - 0.004, h - z), (-x, -d / 4 - 0.004, h - z)]],
        image,
    )
    # One painting fills the canvas, whatever its shape.
    canvas.uv = canvas.uv / np.maximum(canvas.uv.max((0, 1)), 1e-6) * 0.999
    return merge(
        [
            box((-w / 2, -d / 4, 0), (w / 2, d / 2, h), style.white()),
            canvas,
            *[box((x0, -d / 2, 0), (x0 + rim, d / 2, h), frame) for x0 in (-w / 2, w / 2 - rim)],
            *[box((-w / 2, -d / 2, z0), (w / 2, d / 2, z0 + rim), frame) for z0 in (0, h - rim)],
        ]
    )


def mirror(style: Style, size: Size) -> Mesh:
    """A pale pane in a frame."""
    w, d, h = size
    return merge(
        [
            box((-w / 2, -d / 4, 0), (w / 2, d / 2, h), style.metal()),
            box((-w / 2 + 0.03, -d / 2, 0.03), (w / 2 - 0.03, -d / 4, h - 0.03), (0.72, 0.78, 0.82)),
        ]
    )


def counter(style: Style, size: Size) -> Mesh:
    """A worktop with an apron in front and a splash-back behind."""
    w, d, h = size
    top = style.stone() if style.chance(0.65) else style.wood()
    thick = style.between(0.04, 0.07)
    return merge(
        [box((-w / 2, -d / 2, 0), (w / 2, d / 2, thick), top), box((-w / 2, d / 2 - 0.025, 0), (w / 2, d / 2, h), top)]
    )


def kitchen_island(style: Style, size: Size) -> Mesh:
    """A free-standing counter: a thick worktop that juts out over a panelled body."""
    w, d, h = size
    top = style.stone() if style.chance(0.6) else style.wood()
    body = style.stone() if style.chance(0.3) else style.wood()
    over = style.between(0.04, 0.12)
    thick = style.between(0.05, 0.1)
    parts = [
        box((-w / 2, -d / 2, h - thick), (w / 2, d / 2, h), top),
        box((-w / 2 + over, -d / 2 + over, 0), (w / 2 - over, d / 2 - over, h - thick), body),
    ]
    return merge(parts)


def curtain(style: Style, size: Size) -> Mesh:
    """Pleated cloth that hangs from a rod."""
    w, _, h = size
    waves = style.between(9, 14) * w
    return merge(
        [
            _drape(style, size, waves, style.cloth(), flare=1.15),
            box((-w / 2 - 0.08, -0.012, h - 0.025), (w / 2 + 0.08, 0.012, h), style.metal()),
        ]
    )


def shower_curtain(style: Style, size: Size) -> Mesh:
    """Thin cloth with broad folds, rings and a rod; white, pastel or printed."""
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
    return merge([_drape(style, (w, d, h - 0.05), style.between(4, 6) * w, cloth, flare=1.0), rod, *rings])


def refrigerator(style: Style, size: Size) -> Mesh:
    """A tall enamelled or steel box with two doors and long handles."""
    w, d, h = size
    color = style.white() if style.chance(0.5) else textures.hsv(0.58, 0.04, style.between(0.45, 0.75))
    split = h * (style.between(0.6, 0.72) if style.chance(0.6) else style.between(0.3, 0.4))
    metal, gap, thick = style.metal(), 0.006, 0.05
    parts = [
        box((-w / 2, -d / 2 + thick, 0.03), (w / 2, d / 2, h), color),
        box((-w / 2, -d / 2 + 0.1, 0), (w / 2, d / 2, 0.03), (0.1, 0.1, 0.1)),
    ]
    for low, high, handle in ((0.05, split - gap, split - 0.2), (split + gap, h, split + 0.2)):
        parts.append(box((-w / 2, -d / 2, low), (w / 2, -d / 2 + thick - gap, high), color))
        x = w / 2 - 0.06
        parts.append(box((x - 0.012, -d / 2 - 0.04, handle - 0.16), (x + 0.012, -d / 2, handle + 0.16), metal))
    return merge(parts)


def toilet(style: Style, size: Size) -> Mesh:
    """A bowl on a foot, a seat with a lid, a cistern behind."""
    w, d, h = size
    white = style.white()
    lid = white if style.chance(0.7) else textures.hsv(0.08, style.between(0.3, 0.6), 0.5)
    rim, tank = style.between(0.38, 0.43), style.between(0.16, 0.2)
    reach = (d - tank) / 2
    y = d / 2 - tank - reach
    bowl = lathe(
        [(0.1, 0), (0.11, 0.1), (0.12, 0.2), (w * 0.44, rim - 0.06), (w * 0.46, rim)],
        white,
        20,
        (1, reach / (w * 0.46)),
    )
    seat = lathe(
        [
            (w * 0.22, rim),
            (w * 0.47, rim),
            (w * 0.48, rim + 0.025),
            (w * 0.24, rim + 0.03),
            (w * 0.22, rim - 0.12),
            (0, rim - 0.16),
        ],
        lid,
        20,
        (1, reach / (w * 0.48)),
    )
    parts = [
        bowl.moved((0, y, 0)),
        seat.moved((0, y, 0)),
        box((-w / 2, d / 2 - tank, rim - 0.02), (w / 2, d / 2, h - 0.03), white),
        box((-w / 2 - 0.01, d / 2 - tank - 0.01, h - 0.03), (w / 2 + 0.01, d / 2, h), white),
        box((-0.1, d / 2 - tank - 0.05, 0), (0.1, d / 2 - 0.03, rim), white),
    ]
    if style.chance(0.5):
        # An open lid leans on the cistern.
        parts.append(
            box((-w * 0.44, d / 2 - tank - 0.04, rim + 0.03), (w * 0.44, d / 2 - tank - 0.015, rim + reach * 1.6), lid)
        )
    return merge(parts)


def sink(style: Style, size: Size) -> Mesh:
    """A wash basin on a pedestal or a small cabinet, with a tap."""
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
    return merge(parts)


def counter_sink(style: Style, size: Size) -> Mesh:
    """A basin that sits on a worktop: steel or porcelain, with a tap."""
    w, d, h = size
    color = style.white() if style.chance(0.4) else textures.hsv(0.58, 0.04, style.between(0.55, 0.75))
    depth = 0.06 if style.chance(0.6) else 0.1
    return merge([_basin(w, d, depth, color), _tap(style, h - depth).moved((0, d * 0.38, depth - 0.01))])


def bathtub(style: Style, size: Size) -> Mesh:
    """A built-in tub with a straight apron, or a free-standing oval one; taps at one end."""
    w, d, h = size
    white = style.white()
    if style.chance(0.35):
        shell = [
            (0.62, 0),
            (0.75, 0.05),
            (0.9, h * 0.6),
            (1.0, h),
            (0.94, h),
            (0.8, h * 0.45),
            (0.6, h * 0.22),
            (0, h * 0.2),
        ]
        body = lathe([(r * w / 2, z) for r, z in shell], white, 28, (1, d / w))
        return merge([body, _tap(style, 0.2).moved((-w * 0.4, 0, h))])
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
    return merge([inner, deck, *sides, _tap(style, 0.16).moved((-w / 2 + 0.06, 0, h))])


def lamp(style: Style, size: Size) -> Mesh:
    """A floor lamp: foot, rod, shade."""
    w, _, h = size
    metal = style.metal()
    foot = lathe([(0.14, 0), (0.14, 0.02), (0.013, 0.03), (0.013, h - 0.25)], metal, 12)
    shade = lathe(
        [(w / 2, h - 0.32), (w / 2 * style.between(0.5, 0.95), h)],
        textures.cloth(style.rng, style.paint((0.8, 1), (0.05, 0.4))),
        20,
    )
    return merge([foot, shade])


def stove(style: Style, size: Size) -> Mesh:
    """A cooker: oven door with a dark pane, knobs, four plates."""
    w, d, h = size
    body = style.white() if style.chance(0.5) else style.metal()
    parts = [
        box((-w / 2, -d / 2 + 0.02, 0), (w / 2, d / 2, h), body),
        box((-w / 2 + 0.03, -d / 2, 0.15), (w / 2 - 0.03, -d / 2 + 0.02, h - 0.16), (0.12, 0.12, 0.13)),
        box((-w / 2 + 0.06, -d / 2 - 0.03, h - 0.2), (w / 2 - 0.06, -d / 2, h - 0.18), style.metal()),
    ]
    for x in (-0.14, 0.14):
        for y in (-0.13, 0.13):
            parts.append(
                lathe([(0, h + 0.012), (0.09, h + 0.012), (0.09, h)][::-1], (0.08, 0.08, 0.08), 14).moved((x, y, 0))
            )
    parts += [
        box((x - 0.02, -d / 2, h - 0.1), (x + 0.02, -d / 2 + 0.02, h - 0.06), (0.1, 0.1, 0.1))
        for x in np.linspace(-0.2, 0.2, 4)
    ]
    return merge(parts)


def _legs(w: float, d: float, h: float, side: float, image: ByteArray | tuple[float, float, float]) -> list[Mesh]:
    return [
        box((x, y, 0), (x + side, y + side, h), image) for x in (-w / 2, w / 2 - side) for y in (-d / 2, d / 2 - side)
    ]


def _cushion(size: Size, image: ByteArray | tuple[float, float, float]) -> Mesh:
    """A box with bevelled edges, standing on z = 0."""
    w, d, h = size
    bevel = min(size) * 0.3
    outline = [(-1, -1), (1, -1), (1, 1), (-1, 1), (-1, -1)]
    rows = [(bevel, 0), (0, bevel), (0, h - bevel), (bevel, h)]
    grid = [[(x * (w / 2 - inset), y * (d / 2 - inset), z) for x, y in outline] for inset, z in rows]
    cap = [[(x * (w / 2 - bevel), y * (d / 2 - bevel), h) for x, y in outline[:4]]]
    return merge(
        [
            sheet(grid, image),
            polygons(
                cap, image if isinstance(image, np.ndarray) else textures.plaster(np.random.default_rng(0), image)
            ),
        ]
    )


def _books(style: Style, left: float, right: float, depth: float, z: float, room: float) -> list[Mesh]:
    """A row of books that leaves some gaps."""
    books, x = [], left + 0.01
    while x < right - 0.06:
        if style.chance(0.06):
            x += style.between(0.05, 0.25)
            continue
        thick = style.between(0.025, 0.065)
        height, reach = room * style.between(0.6, 0.93), style.between(0.5, 0.85) * depth
        books.append(
            box(
                (x, depth / 2 - 0.02 - reach, z),
                (min(x + thick, right), depth / 2 - 0.02, z + height),
                style.paint((0.2, 0.9), (0.1, 0.9)),
            )
        )
        x += thick + 0.002
    return books


def _drape(style: Style, size: Size, waves: float, image: ByteArray, flare: float) -> Mesh:
    """A wavy sheet w x h whose folds are d deep; `flare` widens the folds towards the floor."""
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


def _basin(w: float, d: float, h: float, color: tuple[float, float, float]) -> Mesh:
    """A rectangular block with an oval hollow, standing on z = 0."""
    radius_x, radius_y = w / 2 * 0.84, d / 2 * 0.74
    darker = tuple(0.88 * c for c in color)
    hollow = lathe([(0, h * 0.2), (0.6, h * 0.22), (0.9, h * 0.55), (1, h)], darker, 20).scaled((radius_x, radius_y, 1))
    sides = [box((-w / 2, y, 0), (w / 2, y + 0.01, h), color) for y in (-d / 2, d / 2 - 0.01)]
    sides += [box((x, -d / 2, 0), (x + 0.01, d / 2, h), color) for x in (-w / 2, w / 2 - 0.01)]
    return merge([hollow, _deck(w, d, radius_x, radius_y, h, color), *sides])


def _deck(w: float, d: float, radius_x: float, radius_y: float, h: float, color: tuple[float, float, float]) -> Mesh:
    """A flat rectangle at height h with an oval hole."""
    angle = np.linspace(0, 2 * np.pi, 29)
    oval = np.stack([np.cos(angle) * radius_x, np.sin(angle) * radius_y], -1)
    # The same angles on the rectangle's edge: stretch each direction until it hits a side.
    reach = 1 / np.maximum(np.abs(np.cos(angle)), np.abs(np.sin(angle)))
    edge = np.stack([np.cos(angle) * reach * w / 2, np.sin(angle) * reach * d / 2], -1)
    grid = np.stack([edge, oval])[::-1]
    return sheet(np.concatenate([grid, np.full((*grid.shape[:2], 1), h)], -1)[::-1], color)


def _tap(style: Style, height: float) -> Mesh:
    """A standing tap whose spout points to -y."""
    metal = textures.hsv(0.58, 0.03, 0.7)
    reach = style.between(0.1, 0.16)
    return merge(
        [
            box((-0.014, -0.014, 0), (0.014, 0.014, height), metal),
            box((-0.012, -reach, height - 0.025), (0.012, 0.014, height), metal),
            box((-0.06, -0.01, 0), (0.06, 0.01, 0.03), metal),
        ]
    )


SHAPES: dict[str, Callable[[Style, Size], Mesh]] = {
    "wardrobe": wardrobe,
    "dresser": dresser,
    "kitchen cabinet": kitchen_cabinet,
    "wall cabinet": wall_cabinet,
    "filing cabinet": filing_cabinet,
    "bed": bed,
    "chair": chair,
    "armchair": sofa,
    "office chair": office_chair,
    "sofa": sofa,
    "dining table": table,
    "coffee table": coffee_table,
    "desk": desk,
    "door": door,
    "window": window,
    "bookshelf": bookshelf,
    "picture": picture,
    "counter": counter,
    "kitchen island": kitchen_island,
    "curtain": curtain,
    "refrigerator": refrigerator,
    "shower curtain": shower_curtain,
    "toilet": toilet,
    "sink": sink,
    "counter sink": counter_sink,
    "bathtub": bathtub,
    "nightstand": nightstand,
    "lamp": lamp,
    "stove": stove,
    "mirror": mirror,
}
"""Kind -> builder."""
