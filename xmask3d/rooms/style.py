"""Random choices of procedural furniture, separate for training and validation."""

from collections.abc import Sequence
from typing import TypeVar

import numpy as np

from xmask3d.errors import UserError
from xmask3d.rooms import textures
from xmask3d.rooms.mesh import ByteArray

Option = TypeVar("Option")

SLOTS = {"train": (0, 1, 3, 4, 6, 7), "val": (2, 5)}
"""Parts, of the eight of each range, that belong to a split. Both splits span the range, without common values."""


class Style:
    """Stream of random choices whose numbers never coincide between the splits.

    Args:
        rng: random generator of the choices.
        split: "train" or "val".
    """

    def __init__(self, rng: np.random.Generator, split: str) -> None:
        if split not in SLOTS:
            raise UserError(f"split {split!r} is unknown: use train or val")
        self.rng = rng
        self.slots = SLOTS[split]

    def between(self, low: float, high: float) -> float:
        """Draw a number from this split's parts of a range."""
        slot = self.slots[self.rng.integers(len(self.slots))]
        return float(low + (high - low) * (slot + self.rng.uniform(0.02, 0.98)) / 8)

    def choice(self, options: Sequence[Option]) -> Option:
        """Choose one of several values that both splits share."""
        return options[int(self.rng.integers(len(options)))]

    def chance(self, probability: float) -> bool:
        """Return True with a given probability."""
        return bool(self.rng.random() < probability)

    def count(self, low: int, high: int) -> int:
        """Draw an integer, both ends included."""
        return int(self.rng.integers(low, high + 1))

    def paint(
        self, value: tuple[float, float] = (0.3, 0.95), saturation: tuple[float, float] = (0.1, 0.75)
    ) -> tuple[float, float, float]:
        """Draw a colour of any hue."""
        return textures.hsv(self.between(0, 1), self.between(*saturation), self.between(*value))

    def white(self) -> tuple[float, float, float]:
        """Draw a white, as of porcelain or enamel, warm or cold."""
        return textures.hsv(self.between(0.05, 0.6), self.between(0, 0.07), self.between(0.84, 1))

    def metal(self) -> tuple[float, float, float]:
        """Draw a grey, from black iron to chrome."""
        return textures.hsv(self.between(0.5, 0.7), self.between(0, 0.08), self.choice([0.15, 0.35, 0.6, 0.75]))

    def wood(self) -> ByteArray:
        """Draw a wood, from birch to wenge; sometimes painted white or grey."""
        if self.chance(0.25):
            return textures.wood(self.rng, textures.hsv(self.between(0.05, 0.6), 0.05, self.between(0.55, 0.95)))
        return textures.wood(
            self.rng, textures.hsv(self.between(0.04, 0.12), self.between(0.35, 0.7), self.between(0.3, 0.85))
        )

    def cloth(self) -> ByteArray:
        """Draw upholstery or linen of any colour."""
        return textures.cloth(self.rng, self.paint((0.3, 0.95), (0.05, 0.75)))

    def stone(self) -> ByteArray:
        """Draw granite or marble, dark or light."""
        return textures.stone(
            self.rng, textures.hsv(self.between(0, 1), self.between(0, 0.15), self.between(0.2, 0.92))
        )
