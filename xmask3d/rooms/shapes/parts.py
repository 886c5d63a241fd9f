"""Parts shared by several pieces of furniture."""

from xmask3d.rooms.mesh import ByteArray, Mesh, as_texture, box, merge, polygons, sheet

Size = tuple[float, float, float]
"""Width, depth and height in metres."""


def legs(w: float, d: float, h: float, side: float, image: ByteArray | tuple[float, float, float]) -> list[Mesh]:
    """Build four legs in the corners of w x d, h high."""
    return [
        box((x, y, 0), (x + side, y + side, h), image) for x in (-w / 2, w / 2 - side) for y in (-d / 2, d / 2 - side)
    ]


def cushion(size: Size, image: ByteArray | tuple[float, float, float]) -> Mesh:
    """Build a box with bevelled edges, standing on z = 0."""
    w, d, h = size
    bevel = min(size) * 0.3
    outline = [(-1, -1), (1, -1), (1, 1), (-1, 1), (-1, -1)]
    rows = [(bevel, 0), (0, bevel), (0, h - bevel), (bevel, h)]
    grid = [[(x * (w / 2 - inset), y * (d / 2 - inset), z) for x, y in outline] for inset, z in rows]
    cap = [[(x * (w / 2 - bevel), y * (d / 2 - bevel), h) for x, y in outline[:4]]]
    return merge(sheet(grid, image), polygons(cap, as_texture(image)))
