"""Builders of procedural furniture, one function per kind."""

from collections.abc import Callable

from xmask3d.rooms.mesh import Mesh
from xmask3d.rooms.shapes import bath, furnishing, hangings, storage
from xmask3d.rooms.shapes.parts import Size
from xmask3d.rooms.style import Style

SHAPES: dict[str, Callable[[Style, Size], Mesh]] = {
    "wardrobe": storage.wardrobe,
    "dresser": storage.dresser,
    "kitchen cabinet": storage.kitchen_cabinet,
    "wall cabinet": storage.wall_cabinet,
    "filing cabinet": storage.filing_cabinet,
    "bed": furnishing.bed,
    "chair": furnishing.chair,
    "armchair": furnishing.sofa,
    "office chair": furnishing.office_chair,
    "sofa": furnishing.sofa,
    "dining table": furnishing.table,
    "coffee table": furnishing.coffee_table,
    "desk": furnishing.desk,
    "door": hangings.door,
    "window": hangings.window,
    "bookshelf": storage.bookshelf,
    "picture": hangings.picture,
    "counter": storage.counter,
    "kitchen island": storage.kitchen_island,
    "curtain": hangings.curtain,
    "refrigerator": storage.refrigerator,
    "shower curtain": hangings.shower_curtain,
    "toilet": bath.toilet,
    "sink": bath.sink,
    "counter sink": bath.counter_sink,
    "bathtub": bath.bathtub,
    "nightstand": storage.nightstand,
    "lamp": furnishing.lamp,
    "stove": storage.stove,
    "mirror": hangings.mirror,
    "low tv stand": storage.low_tv_stand,
}
"""Kind -> builder."""
