"""Small things that lie about: books, cups, bottles, boxes, laptops, cushions, clothes, shoes and the like.

Each function takes a generator and returns a mesh that stands on z = 0 around the origin, its front facing -y.
"""

from collections.abc import Callable

import numpy as np

from xmask3d.rooms import textures
from xmask3d.rooms.mesh import Mesh, box, filled, lathe, merge, pane, polygons, sheet
from xmask3d.rooms.scanned import pictures

Maker = Callable[[np.random.Generator], Mesh]


def books(rng: np.random.Generator) -> Mesh:
    """Build a stack of books, none quite above the other."""
    parts, z = [], 0.0
    for _ in range(int(rng.integers(1, 6))):
        w, d, h = rng.uniform(0.13, 0.24), rng.uniform(0.18, 0.3), rng.uniform(0.012, 0.05)
        cover = box((-w / 2, -d / 2, 0), (w / 2, d / 2, h), _paint(rng))
        parts.append(cover.turned(float(rng.normal(0, 0.2))).moved((*rng.normal(0, 0.01, 2), z)))
        z += h
    return merge(*parts)


def cup(rng: np.random.Generator) -> Mesh:
    """Build a cup or a glass."""
    r, h = rng.uniform(0.03, 0.05), rng.uniform(0.07, 0.13)
    return lathe([(0, 0.003), (r * 0.8, 0), (r, h), (r * 0.9, h), (r * 0.7, 0.01)], _paint(rng), 12)


def bottle(rng: np.random.Generator) -> Mesh:
    """Build a bottle with a cap."""
    r, h = rng.uniform(0.025, 0.055), rng.uniform(0.15, 0.33)
    profile = [(r, 0), (r, h * 0.6), (r * 0.35, h * 0.8), (r * 0.35, h), (0, h)]
    return lathe(profile, _paint(rng), 12)


def bowl(rng: np.random.Generator) -> Mesh:
    """Build a bowl, sometimes with fruit in it."""
    r, h = rng.uniform(0.08, 0.16), rng.uniform(0.04, 0.09)
    parts = [lathe([(r * 0.4, 0), (r, h), (r * 0.95, h), (r * 0.35, 0.012), (0, 0.012)], _paint(rng), 16)]
    if rng.random() < 0.5:
        for _ in range(int(rng.integers(2, 6))):
            size = float(rng.uniform(0.028, 0.042))
            color = textures.hsv(rng.choice([0.0, 0.08, 0.14, 0.25]), 0.85, rng.uniform(0.6, 0.95))
            parts.append(_ball(size, color).moved((*rng.uniform(-r / 2, r / 2, 2), h * 0.5)))
    return merge(*parts)


def package(rng: np.random.Generator) -> Mesh:
    """Build a box or a package."""
    w, d, h = rng.uniform(0.08, 0.38), rng.uniform(0.06, 0.3), rng.uniform(0.05, 0.3)
    return box((-w / 2, -d / 2, 0), (w / 2, d / 2, h), pictures.package(rng), max(w, h))


def laptop(rng: np.random.Generator) -> Mesh:
    """Build an open laptop."""
    w, d = rng.uniform(0.3, 0.38), rng.uniform(0.21, 0.26)
    shell = textures.hsv(0.6, 0.03, rng.choice([0.12, 0.55, 0.75]))
    lean = rng.uniform(0.02, 0.12)
    lid = [[(-w / 2, d / 2, 0.02), (w / 2, d / 2, 0.02), (w / 2, d / 2 + lean, d), (-w / 2, d / 2 + lean, d)]]
    base = box((-w / 2, -d / 2, 0), (w / 2, d / 2, 0.018), shell)
    keys = box((-w * 0.45, -d * 0.1, 0.018), (w * 0.45, d * 0.42, 0.02), (0.08, 0.08, 0.09))
    return merge(base, keys, filled(polygons(lid, pictures.screen(rng))))


def monitor(rng: np.random.Generator) -> Mesh:
    """Build a monitor on its foot, sometimes with a keyboard before it."""
    w, h, z = rng.uniform(0.45, 0.65), rng.uniform(0.28, 0.38), rng.uniform(0.1, 0.16)
    shell = textures.hsv(0.6, 0.03, rng.choice([0.06, 0.1, 0.6]))
    parts = [
        box((-w / 2, -0.02, z - 0.02), (w / 2, 0.02, z + h + 0.01), shell),
        pane(w / 2 - 0.01, -0.021, z, z + h, pictures.screen(rng)),
        box((-0.03, 0.0, 0), (0.03, 0.03, z), shell),
        box((-0.12, -0.08, 0), (0.12, 0.09, 0.012), shell),
    ]
    if rng.random() < 0.6:
        parts.append(box((-0.21, -0.32, 0), (0.21, -0.19, 0.02), textures.hsv(0, 0, rng.choice([0.1, 0.9]))))
    return merge(*parts)


def papers(rng: np.random.Generator) -> Mesh:
    """Build sheets of paper."""
    sheets = []
    for index in range(int(rng.integers(1, 5))):
        corners = [(-0.105, -0.148, 0), (0.105, -0.148, 0), (0.105, 0.148, 0), (-0.105, 0.148, 0)]
        page = filled(polygons([corners], pictures.poster(rng)))
        sheets.append(page.turned(float(rng.uniform(0, 6.3))).moved((*rng.normal(0, 0.04, 2), 0.003 + 0.002 * index)))
    return merge(*sheets)


def cushion(rng: np.random.Generator) -> Mesh:
    """Build a scatter cushion that lies flat."""
    w, h = rng.uniform(0.35, 0.55), rng.uniform(0.1, 0.18)
    u = np.linspace(-1, 1, 9)
    bulge = (1 - u[:, None] ** 4) * (1 - u**4)
    cloth = textures.cloth(rng, _paint(rng))
    halves = []
    for sign in (-1, 1):
        z = h / 2 + sign * h / 2 * np.sqrt(bulge)
        grid = np.stack([*np.meshgrid(u * w / 2, u * w / 2), z], -1)
        halves.append(sheet(grid if sign > 0 else grid[:, ::-1], cloth, 0.4))
    return merge(*halves)


def clothes(rng: np.random.Generator) -> Mesh:
    """Build a heap of cloth: a blanket, a towel or clothes thrown down."""
    w, d, h = rng.uniform(0.25, 0.7), rng.uniform(0.25, 0.55), rng.uniform(0.05, 0.2)
    u = np.linspace(-1, 1, 13)
    x, y = np.meshgrid(u, u)
    waves_x, waves_y = (np.sin(rng.uniform(2, 6) * axis + rng.uniform(0, 6)) for axis in (x, y))
    fold = 0.5 + 0.3 * waves_x * waves_y
    z = h * np.clip(1 - np.maximum(np.abs(x), np.abs(y)) ** 3, 0, 1) * (fold + 0.1 * rng.random(x.shape))
    grid = np.stack([x * w / 2, y * d / 2, z + 0.004], -1)
    return sheet(grid, textures.cloth(rng, _paint(rng)), 0.5)


def shoes(rng: np.random.Generator) -> Mesh:
    """Build a pair of shoes."""
    color, sole = _paint(rng), textures.hsv(0, 0, rng.choice([0.05, 0.9]))
    shoe = merge(
        box((-0.045, -0.14, 0), (0.045, 0.14, 0.025), sole),
        box((-0.04, -0.13, 0.025), (0.04, 0.13, 0.06), color),
        box((-0.038, 0.0, 0.06), (0.038, 0.13, 0.1), color),
    )
    left, right = float(rng.normal(0, 0.25)), float(rng.normal(0, 0.25))
    return merge(shoe.turned(left).moved((-0.07, 0, 0)), shoe.turned(right).moved((0.07, rng.normal(0, 0.03), 0)))


def bag(rng: np.random.Generator) -> Mesh:
    """Build a bag or a rucksack."""
    w, d, h = rng.uniform(0.28, 0.42), rng.uniform(0.14, 0.24), rng.uniform(0.25, 0.45)
    levels = np.array([[0.85, 0.0], [1.0, 0.25], [0.95, 0.7], [0.6, 1.0], [0.0, 1.0]])
    angle = np.linspace(0, 2 * np.pi, 13)
    ring = np.stack([np.sign(wave) * np.abs(wave) ** 0.5 for wave in (np.cos(angle), np.sin(angle))], -1)
    grid = [[(x * w / 2 * r, y * d / 2 * r, z * h) for x, y in ring] for r, z in levels]
    return sheet(grid, textures.cloth(rng, _paint(rng)), 0.3)


def vase(rng: np.random.Generator) -> Mesh:
    """Build a vase or a pot, with leaves in it or without."""
    r, h = rng.uniform(0.05, 0.1), rng.uniform(0.12, 0.28)
    parts = [lathe([(r * 0.6, 0), (r, h * 0.45), (r * 0.5, h * 0.9), (r * 0.6, h)], _paint(rng), 14)]
    if rng.random() < 0.6:
        green = textures.hsv(rng.uniform(0.22, 0.36), rng.uniform(0.4, 0.8), rng.uniform(0.25, 0.6))
        for angle in rng.uniform(0, 2 * np.pi, 9):
            out, up, wide = rng.uniform(0.05, 0.18), rng.uniform(0.08, 0.28), 0.025
            side = np.array([-np.sin(angle), np.cos(angle), 0]) * wide
            foot, tip = np.array([0, 0, h * 0.9]), np.array([np.cos(angle) * out, np.sin(angle) * out, h + up])
            middle = (foot + tip) / 2 + [0, 0, 0.05]
            parts.append(polygons([[foot, middle - side, tip, middle + side]], textures.wood(rng, green)))
    return merge(*parts)


def table_lamp(rng: np.random.Generator) -> Mesh:
    """Build a small lamp with a shade."""
    h = rng.uniform(0.28, 0.45)
    foot = lathe([(0.07, 0), (0.06, 0.02), (0.015, 0.05), (0.012, h * 0.6)], _paint(rng), 12)
    shade = lathe([(0.12, h * 0.55), (0.08, h)], textures.cloth(rng, textures.hsv(0.12, rng.uniform(0, 0.3), 0.95)), 16)
    return merge(foot, shade)


def appliance(rng: np.random.Generator) -> Mesh:
    """Build a toaster, a kettle, a coffee machine or a microwave oven."""
    kind = int(rng.integers(0, 4))
    color = textures.hsv(rng.random(), rng.choice([0.02, 0.05, 0.7]), rng.choice([0.1, 0.6, 0.92]))
    if kind == 0:
        return merge(
            box((-0.13, -0.08, 0.01), (0.13, 0.08, 0.18), color),
            box((-0.1, -0.05, 0.18), (0.1, 0.05, 0.183), (0.05, 0.05, 0.05)),
        )
    if kind == 1:
        return lathe([(0.08, 0), (0.085, 0.04), (0.06, 0.2), (0.02, 0.24), (0, 0.25)], color, 14)
    if kind == 2:
        return merge(
            box((-0.1, 0.02, 0), (0.1, 0.14, 0.32), color),
            box((-0.1, -0.12, 0.24), (0.1, 0.02, 0.32), color),
            box((-0.1, -0.12, 0), (0.1, 0.02, 0.03), color),
            lathe([(0.05, 0.03), (0.06, 0.14), (0.04, 0.17)], (0.1, 0.07, 0.05), 12).moved((0, -0.05, 0)),
        )
    return merge(
        box((-0.24, -0.17, 0), (0.24, 0.18, 0.28), color),
        box((-0.22, -0.175, 0.03), (0.1, -0.17, 0.25), (0.06, 0.06, 0.07)),
    )


def toiletries(rng: np.random.Generator) -> Mesh:
    """Build a few small bottles and tubes."""
    parts = [bottle(rng).scaled(float(rng.uniform(0.45, 0.75))) for _ in range(int(rng.integers(2, 5)))]
    return merge(*(part.moved((0.07 * i, float(rng.normal(0, 0.02)), 0)) for i, part in enumerate(parts)))


def ball(rng: np.random.Generator) -> Mesh:
    """Build a ball."""
    size = float(rng.uniform(0.06, 0.14))
    return _ball(size, _paint(rng)).moved((0, 0, size))


def basket(rng: np.random.Generator) -> Mesh:
    """Build an open basket or a tub."""
    r, h = rng.uniform(0.14, 0.24), rng.uniform(0.2, 0.4)
    weave = textures.cloth(rng, textures.hsv(rng.uniform(0.05, 0.12), rng.uniform(0.1, 0.6), rng.uniform(0.4, 0.9)))
    return lathe([(0, 0.005), (r * 0.8, 0), (r, h), (r * 0.96, h), (r * 0.76, 0.01)], weave, 16)


def television(rng: np.random.Generator) -> Mesh:
    """Build a flat television on its feet."""
    w = rng.uniform(0.75, 1.25)
    h = w * 0.57
    black = (0.03, 0.03, 0.035)
    return merge(
        box((-w / 2, -0.025, 0.06), (w / 2, 0.025, 0.06 + h), black),
        pane(w / 2 - 0.012, -0.026, 0.07, 0.05 + h, pictures.screen(rng)),
        *(box((x - 0.02, -0.1, 0), (x + 0.02, 0.1, 0.06), black) for x in (-w * 0.3, w * 0.3)),
    )


def _ball(radius: float, color: tuple[float, float, float]) -> Mesh:
    angle = np.linspace(-np.pi / 2, np.pi / 2, 7)
    return lathe(np.stack([np.cos(angle) * radius, np.sin(angle) * radius], -1), color, 12)


def _paint(rng: np.random.Generator) -> tuple[float, float, float]:
    """Draw a colour: any hue, or a grey from black to white."""
    if rng.random() < 0.4:
        return textures.hsv(rng.random(), rng.uniform(0, 0.1), rng.choice([0.04, 0.15, 0.5, 0.85, 0.97]))
    return textures.hsv(rng.random(), rng.uniform(0.3, 0.95), rng.uniform(0.2, 0.95))
