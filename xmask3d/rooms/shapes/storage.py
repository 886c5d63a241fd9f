"""Procedural cabinets, shelves, counters and kitchen appliances.

Each function takes a style and a size (width, depth, height) in metres and returns a mesh roughly of that size,
standing on the floor around the origin, front facing -y.
"""

import numpy as np

from xmask3d.rooms import textures
from xmask3d.rooms.mesh import Mesh, box, lathe, merge
from xmask3d.rooms.shapes.parts import Size, legs
from xmask3d.rooms.style import Style


def storage(style: Style, size: Size, rows: int, columns: int, plinth: float = 0.06) -> Mesh:
    """Build a cabinet: a body with doors or drawers, each with a handle."""
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
    return merge(*parts)


def wardrobe(style: Style, size: Size) -> Mesh:
    """Build a wardrobe: tall doors side by side."""
    return storage(style, size, rows=1, columns=max(2, round(size[0] / 0.5)))


def dresser(style: Style, size: Size) -> Mesh:
    """Build a dresser: drawers in one or two columns."""
    return storage(style, size, rows=style.count(3, 4), columns=1 if size[0] < 0.95 else 2)


def filing_cabinet(style: Style, size: Size) -> Mesh:
    """Build a filing cabinet: drawers above each other."""
    return storage(style, size, rows=max(2, round(size[2] / 0.32)), columns=1, plinth=0.03)


def kitchen_cabinet(style: Style, size: Size) -> Mesh:
    """Build a kitchen base unit: one or two doors, or drawers, over a plinth."""
    drawers = style.chance(0.3)
    return storage(style, size, rows=3 if drawers else 1, columns=1 if drawers or size[0] < 0.62 else 2, plinth=0.1)


def wall_cabinet(style: Style, size: Size) -> Mesh:
    """Build a wall cabinet with one or two doors."""
    return storage(style, size, rows=1, columns=1 if size[0] < 0.62 else 2, plinth=0.0)


def low_tv_stand(style: Style, size: Size) -> Mesh:
    """Build a long low cabinet for a television, with drawers or flaps, or open in the middle."""
    w, d, h = size
    if style.chance(0.5):
        return storage(style, size, rows=1, columns=max(2, round(w / 0.55)), plinth=style.between(0.02, 0.12))
    side = w * style.between(0.28, 0.36)
    wood = style.wood()
    return merge(
        storage(style, (side, d, h - 0.03), 2, 1, 0.03).moved((-(w - side) / 2, 0, 0)),
        storage(style, (side, d, h - 0.03), 2, 1, 0.03).moved(((w - side) / 2, 0, 0)),
        box((-w / 2, -d / 2, h - 0.03), (w / 2, d / 2, h), wood),
        box((-w / 2 + side, d / 2 - 0.02, 0.03), (w / 2 - side, d / 2, h - 0.03), wood),
        box((-w / 2 + side, -d / 2 + 0.02, h * 0.4), (w / 2 - side, d / 2, h * 0.4 + 0.02), wood),
    )


def nightstand(style: Style, size: Size) -> Mesh:
    """Build a nightstand: a small chest, or a drawer on legs."""
    w, d, h = size
    if style.chance(0.5):
        return storage(style, size, rows=2, columns=1, plinth=0.03)
    return merge(
        storage(style, (w, d, h * 0.45), 1, 1, 0.0).moved((0, 0, h * 0.55)),
        *legs(w, d, h * 0.55, 0.035, style.wood()),
    )


def bookshelf(style: Style, size: Size) -> Mesh:
    """Build a bookshelf: an open case of shelves with rows of books."""
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
    return merge(*parts)


def _books(style: Style, left: float, right: float, depth: float, z: float, room: float) -> list[Mesh]:
    """Build a row of books that leaves some gaps."""
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


def counter(style: Style, size: Size) -> Mesh:
    """Build a worktop with an apron in front and a splash-back behind."""
    w, d, h = size
    top = style.stone() if style.chance(0.65) else style.wood()
    thick = style.between(0.04, 0.07)
    return merge(
        box((-w / 2, -d / 2, 0), (w / 2, d / 2, thick), top), box((-w / 2, d / 2 - 0.025, 0), (w / 2, d / 2, h), top)
    )


def kitchen_island(style: Style, size: Size) -> Mesh:
    """Build a kitchen island: a thick worktop that juts out over a panelled body."""
    w, d, h = size
    top = style.stone() if style.chance(0.6) else style.wood()
    body = style.stone() if style.chance(0.3) else style.wood()
    over = style.between(0.04, 0.12)
    thick = style.between(0.05, 0.1)
    parts = [
        box((-w / 2, -d / 2, h - thick), (w / 2, d / 2, h), top),
        box((-w / 2 + over, -d / 2 + over, 0), (w / 2 - over, d / 2 - over, h - thick), body),
    ]
    return merge(*parts)


def refrigerator(style: Style, size: Size) -> Mesh:
    """Build a refrigerator: a tall enamelled or steel box with two doors and long handles."""
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
    return merge(*parts)


def stove(style: Style, size: Size) -> Mesh:
    """Build a cooker: oven door with a dark pane, knobs, four plates."""
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
    return merge(*parts)
