"""Captioned views of training furniture in random arrangements: the training data of the small foundation models.

A collage is an empty room in which pieces of furniture stand where they fit, in no sensible order. Every piece comes
with the words that its catalogue has for it, so a view gives region-caption pairs and a caption of the whole.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import lru_cache

import numpy as np

from tools.pretraining.vocabulary import CONCEPTS, concept_of
from xmask3d.rooms import textures
from xmask3d.rooms.furniture import FurnitureModel, load_mesh
from xmask3d.rooms.mesh import Mesh, polygons
from xmask3d.rooms.render import Light, Renderer, look_at

CONCEPT_IDS = {concept: index for index, concept in enumerate(CONCEPTS)}
WALL_KINDS = (
    "door",
    "window",
    "picture",
    "curtain",
    "shower curtain",
    "mirror",
    "wall cabinet",
    "wall sink",
    "radiator",
)
FOCAL = (0.903, 1.204)
"""Focal lengths over image width and height: a 320 x 240 frame of the benchmark squeezed to a square."""


@dataclass
class Collage:
    """Furnished box: meshes, with the concept id and the kind of each ("wall" and so on for the box itself)."""

    meshes: list[Mesh]
    concepts: list[int]
    kinds: list[str]
    keys: list[str]
    size: tuple[float, float, float]
    light: Light


def make_collage(rng: np.random.Generator, models: dict[str, list[FurnitureModel]], count: int = 7) -> Collage:
    """Furnish a box room.

    Args:
        models: concept -> models that stand for it; concepts are drawn evenly, so that rare ones are seen as often.
        count: number of pieces on the floor; as many again hang on the walls.
    """
    size = (rng.uniform(2.6, 5.5), rng.uniform(2.6, 5.5), rng.uniform(2.35, 2.8))
    collage = Collage([], [], [], [], size, _random_light(rng, size))
    _add_box(rng, collage)
    wall = {c: [m for m in ms if m.kind in WALL_KINDS] for c, ms in models.items()}
    floor = {c: [m for m in ms if m.kind not in WALL_KINDS] for c, ms in models.items()}
    boxes: list[np.ndarray] = []
    for _ in range(count):
        _stand(rng, collage, _draw(rng, floor), models, boxes)
    for _ in range(count):
        _hang(rng, collage, _draw(rng, wall), boxes)
    return collage


def render_view(
    rng: np.random.Generator, collage: Collage, renderer: Renderer, side: int
) -> tuple[np.ndarray, np.ndarray]:
    """Render one view from inside the room: side x side x 3 uint8 colours and side x side mesh numbers."""
    width, length, _ = collage.size
    bounds = np.stack([mesh.bounds for mesh in collage.meshes])
    for _ in range(20):
        eye = np.array(
            [rng.uniform(-0.5, 0.5) * (width - 0.6), rng.uniform(-0.5, 0.5) * (length - 0.6), rng.uniform(0.9, 1.8)]
        )
        first = 6 if rng.random() < 0.92 and len(collage.meshes) > 6 else 0
        target = bounds[rng.integers(first, len(bounds))].mean(0) + rng.normal(0, 0.25, 3)
        distance = float(np.linalg.norm(target - eye))
        inside = np.all((eye > bounds[6:, 0] - 0.15) & (eye < bounds[6:, 1] + 0.15), axis=1)
        if distance > 0.8 and not inside.any():
            break
    zoom = rng.uniform(0.9, 1.25) if rng.random() < 0.6 else rng.uniform(1.25, 2.2)
    intrinsics = np.array(
        [[FOCAL[0] * zoom * side, 0, (side - 1) / 2], [0, FOCAL[1] * zoom * side, (side - 1) / 2], [0, 0, 1]]
    )
    frame = renderer.render(look_at(eye, target), intrinsics, side, side)
    return frame.color, frame.instance


def model_table(models: Sequence[FurnitureModel]) -> dict[str, list[FurnitureModel]]:
    """Sort models by concept."""
    table: dict[str, list[FurnitureModel]] = {}
    for model in models:
        table.setdefault(concept_of(model.class_name, model.kind), []).append(model)
    return table


def _random_light(rng: np.random.Generator, size: tuple[float, float, float]) -> Light:
    sun = rng.normal(0, 1, 3) * [1, 1, 0.4] + [0, 0, 0.7]
    sun /= np.linalg.norm(sun)
    lamp = (rng.uniform(-0.3, 0.3) * size[0], rng.uniform(-0.3, 0.3) * size[1], size[2] - 0.2)
    return Light(
        ambient=rng.uniform(0.4, 0.7),
        sun=tuple(sun),
        sun_strength=rng.uniform(0.2, 0.6),
        lamp=lamp,
        lamp_strength=rng.uniform(0, 0.5),
        tint=tuple(1 + rng.uniform(-0.08, 0.08, 3)),
        shadows=bool(rng.random() < 0.3),
    )


def _add_box(rng: np.random.Generator, collage: Collage) -> None:
    x, y, h = collage.size[0] / 2, collage.size[1] / 2, collage.size[2]
    wall_color = textures.hsv(rng.random(), rng.uniform(0, 0.35), rng.uniform(0.55, 1.0))
    wall = [textures.plaster, textures.plaster, textures.wallpaper, textures.tiles][rng.integers(4)](rng, wall_color)
    floor_color = textures.hsv(rng.uniform(0.03, 0.15), rng.uniform(0.1, 0.6), rng.uniform(0.3, 0.9))
    if rng.random() < 0.4:
        floor_color = textures.hsv(rng.random(), rng.uniform(0, 0.3), rng.uniform(0.25, 0.9))
    floor = [textures.planks, textures.tiles, textures.carpet, textures.wood][rng.integers(4)](rng, floor_color)
    ceiling = textures.plaster(rng, textures.hsv(rng.random(), rng.uniform(0, 0.05), rng.uniform(0.85, 1)))
    sides = [
        [(-x, y, 0), (x, y, 0), (x, y, h), (-x, y, h)],
        [(x, -y, 0), (-x, -y, 0), (-x, -y, h), (x, -y, h)],
        [(-x, -y, 0), (-x, y, 0), (-x, y, h), (-x, -y, h)],
        [(x, y, 0), (x, -y, 0), (x, -y, h), (x, y, h)],
    ]
    scale = rng.uniform(0.6, 1.6)
    quads = [
        ([(-x, -y, 0), (x, -y, 0), (x, y, 0), (-x, y, 0)], floor, "floor"),
        ([(-x, y, h), (x, y, h), (x, -y, h), (-x, -y, h)], ceiling, "ceiling"),
    ]
    quads += [(side, wall, "wall") for side in sides]
    for corners, image, name in quads:
        _add(collage, polygons([corners], image, scale), name, name, name)


def _add(collage: Collage, mesh: Mesh, concept: str, kind: str, key: str) -> None:
    collage.meshes.append(mesh)
    collage.concepts.append(CONCEPT_IDS[concept])
    collage.kinds.append(kind)
    collage.keys.append(key)


def _draw(rng: np.random.Generator, table: dict[str, list[FurnitureModel]]) -> FurnitureModel:
    """Draw a concept, then library or rule, then a model: hundreds of rule-made models must not crowd out others."""
    concepts = [concept for concept in CONCEPTS if table.get(concept)]
    weights = np.array([1.0 if CONCEPT_IDS[concept] < 19 else 0.25 for concept in concepts])
    models = table[concepts[rng.choice(len(concepts), p=weights / weights.sum())]]
    library = [model for model in models if not model.key.startswith("made/")]
    made = [model for model in models if model.key.startswith("made/")]
    pool = library if library and (not made or rng.random() < 0.6) else made
    return pool[rng.integers(len(pool))]


@lru_cache(maxsize=512)
def _mesh_of(model: FurnitureModel) -> Mesh:
    return load_mesh(model)


def _varied(rng: np.random.Generator, model: FurnitureModel) -> Mesh:
    """Return the model's mesh in another size and often in other colours."""
    mesh = _mesh_of(model).scaled(rng.uniform(0.85, 1.15) * rng.uniform(0.92, 1.08, 3))
    if model.key.startswith("made/") or rng.random() < 0.35:
        return mesh
    tint, strength = rng.uniform(0.1, 1, 3), rng.uniform(0.1, 0.9)
    gain = rng.uniform(0.7, 1.3)
    recolored = [
        np.clip(
            textures.recolored(image, tint, strength * rng.uniform(0.4, 1)).astype(np.float32) * gain, 0, 255
        ).astype(np.uint8)
        for image in mesh.textures
    ]
    return replace(mesh, textures=recolored)


def _stand(
    rng: np.random.Generator,
    collage: Collage,
    model: FurnitureModel,
    models: dict[str, list[FurnitureModel]],
    boxes: list[np.ndarray],
) -> None:
    """Place a piece on the floor, mostly with its back to a wall; give up after some tries."""
    mesh = _varied(rng, model)
    for _ in range(12):
        side = int(rng.integers(4))
        turn = side * np.pi / 2 + (0 if rng.random() < 0.7 else rng.uniform(-0.6, 0.6))
        turned = mesh.turned(turn)
        half = turned.extent[:2] / 2
        room = np.array(collage.size[:2]) / 2 - half
        if np.any(room <= 0):
            continue
        place = rng.uniform(-1, 1, 2) * room
        if rng.random() < 0.7:
            # The front faces -y, so the back of an unturned piece belongs to the wall at +y.
            axis, sign = [(1, 1), (0, -1), (1, -1), (0, 1)][side]
            place[axis] = sign * (room[axis] - 0.02)
        box = np.array([[*(place - half), 0], [*(place + half), float(mesh.extent[2])]])
        if _blocked(box, boxes):
            continue
        boxes.append(box)
        concept = concept_of(model.class_name, model.kind)
        height = model.elevation if model.kind in ("counter", "counter sink") else 0.0
        _add(collage, turned.moved([*place, height]), concept, model.kind, model.key)
        if height > 0:
            _support(rng, collage, turned, place, height, turn, models)
        return


def _support(
    rng: np.random.Generator,
    collage: Collage,
    top: Mesh,
    place: np.ndarray,
    height: float,
    turn: float,
    models: dict[str, list[FurnitureModel]],
) -> None:
    """Place kitchen cabinets below a worktop."""
    cabinets = [model for model in models["cabinet"] if model.kind == "kitchen cabinet"]
    model = cabinets[rng.integers(len(cabinets))]
    mesh = _varied(rng, model).turned(turn)
    size = np.array([top.extent[0], top.extent[1], height]) * [0.98, 0.98, 1]
    _add(
        collage,
        mesh.scaled(size / np.maximum(mesh.extent, 1e-6)).standing().moved([*place, 0]),
        "cabinet",
        model.kind,
        model.key,
    )


def _hang(rng: np.random.Generator, collage: Collage, model: FurnitureModel, boxes: list[np.ndarray]) -> None:
    """Hang a flat piece on a wall, where no other hangs."""
    mesh = _varied(rng, model)
    for _ in range(8):
        side = int(rng.integers(4))
        turned = mesh.turned(side * np.pi / 2)
        half = turned.extent[:2] / 2
        axis, sign = [(1, 1), (0, -1), (1, -1), (0, 1)][side]
        room = np.array(collage.size[:2]) / 2 - half
        if np.any(room <= 0):
            continue
        place = rng.uniform(-1, 1, 2) * room
        # Doors and windows sit in the wall up to a third, other things just before it.
        place[axis] = sign * (room[axis] + (half[axis] * 0.67 if model.kind in ("door", "window") else -0.01))
        base = max(min(model.elevation, collage.size[2] - float(mesh.extent[2]) - 0.02), 0.0)
        box = np.array([[*(place - half), base], [*(place + half), base + float(mesh.extent[2])]])
        if _blocked(box, boxes):
            continue
        boxes.append(box)
        _add(collage, turned.moved([*place, base]), concept_of(model.class_name, model.kind), model.kind, model.key)
        return


def _blocked(box: np.ndarray, boxes: Sequence[np.ndarray]) -> bool:
    return any(bool(np.all(box[0] < other[1]) and np.all(other[0] < box[1])) for other in boxes)
