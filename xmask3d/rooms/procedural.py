"""Procedural furniture: its kinds, sizes and styles. `shapes` builds the meshes."""

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np

from xmask3d.rooms.mesh import Mesh
from xmask3d.rooms.shapes import SHAPES
from xmask3d.rooms.style import Style

Range = tuple[float, float]

SIZES: dict[str, tuple[Range, Range, Range, float]] = {
    "wardrobe": ((0.9, 1.8), (0.55, 0.65), (1.8, 2.2), 0),
    "dresser": ((0.8, 1.4), (0.42, 0.52), (0.7, 1.0), 0),
    "kitchen cabinet": ((0.5, 0.9), (0.58, 0.62), (0.84, 0.86), 0),
    "wall cabinet": ((0.5, 0.9), (0.33, 0.38), (0.6, 0.75), 1.45),
    "filing cabinet": ((0.4, 0.5), (0.5, 0.6), (0.7, 1.3), 0),
    "bed": ((0.95, 1.9), (1.95, 2.15), (0.8, 1.15), 0),
    "chair": ((0.42, 0.5), (0.45, 0.55), (0.82, 1.02), 0),
    "armchair": ((0.7, 0.9), (0.72, 0.9), (0.8, 0.98), 0),
    "office chair": ((0.58, 0.66), (0.58, 0.66), (0.92, 1.1), 0),
    "sofa": ((1.5, 2.3), (0.8, 0.95), (0.75, 0.92), 0),
    "dining table": ((1.2, 1.9), (0.75, 1.0), (0.72, 0.77), 0),
    "coffee table": ((0.8, 1.3), (0.5, 0.7), (0.36, 0.48), 0),
    "desk": ((1.1, 1.7), (0.6, 0.8), (0.72, 0.76), 0),
    "door": ((0.82, 1.0), (0.06, 0.1), (1.98, 2.12), 0),
    "window": ((0.9, 1.8), (0.08, 0.14), (1.0, 1.4), 0.9),
    "bookshelf": ((0.7, 1.4), (0.28, 0.38), (1.3, 2.1), 0),
    "picture": ((0.5, 1.3), (0.03, 0.06), (0.4, 0.95), 1.25),
    "counter": ((1.6, 2.4), (0.61, 0.66), (0.13, 0.2), 0.86),
    "kitchen island": ((1.1, 1.8), (0.7, 0.95), (0.88, 1.05), 0),
    "curtain": ((0.45, 0.8), (0.09, 0.16), (1.9, 2.3), 0.06),
    "refrigerator": ((0.6, 0.9), (0.62, 0.75), (1.5, 1.95), 0),
    "shower curtain": ((1.2, 1.7), (0.1, 0.18), (1.8, 2.0), 0.2),
    "toilet": ((0.37, 0.43), (0.62, 0.72), (0.72, 0.85), 0),
    "sink": ((0.5, 0.7), (0.42, 0.5), (0.85, 0.95), 0),
    "counter sink": ((0.5, 0.75), (0.42, 0.5), (0.2, 0.32), 0.9),
    "bathtub": ((1.5, 1.75), (0.7, 0.8), (0.52, 0.62), 0),
    "nightstand": ((0.4, 0.52), (0.38, 0.46), (0.42, 0.58), 0),
    "lamp": ((0.32, 0.45), (0.32, 0.45), (1.4, 1.7), 0),
    "stove": ((0.58, 0.62), (0.58, 0.62), (0.86, 0.92), 0),
    "mirror": ((0.5, 0.9), (0.03, 0.05), (0.6, 0.9), 1.2),
}
"""Kind -> width, depth and height ranges in metres, and the height of its lowest point above the floor."""


@dataclass(frozen=True)
class ProceduralSource:
    """Recipe of a procedural mesh; equal recipes give equal meshes."""

    kind: str
    split: str
    seed: int
    variant: int

    def style(self) -> Style:
        """Return the stream of random choices of this piece, from its start."""
        return Style(
            np.random.default_rng([self.seed, self.variant, *self.kind.encode(), *self.split.encode()]), self.split
        )

    def build(self, size: tuple[float, float, float]) -> Mesh:
        """Make the mesh and fit its bounding box to a size in metres."""
        style = self.style()
        mesh = SHAPES[self.kind](style, size)
        return mesh.scaled(np.asarray(size) / np.maximum(mesh.extent, 1e-6)).standing()


def procedural_variants(
    split: str, seed: int, per_kind: int
) -> Iterator[tuple[ProceduralSource, tuple[float, float, float], float]]:
    """Return every kind `per_kind` times: source, size in metres, elevation in metres."""
    for kind, (width, depth, height, elevation) in SIZES.items():
        for variant in range(per_kind):
            source = ProceduralSource(kind, split, seed, variant)
            # The size has a separate stream, because building the piece uses its own stream from the start.
            style = Style(np.random.default_rng([seed, variant, 7, *kind.encode(), *split.encode()]), split)
            yield source, (style.between(*width), style.between(*depth), style.between(*height)), elevation
