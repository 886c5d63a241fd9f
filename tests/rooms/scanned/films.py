"""Films for tests: a grey wall two metres away, with changes."""

from typing import Any

import numpy as np

from xmask3d.rooms.scanned.film import Film

SHAPE = (120, 160)
FOCAL = 144.0


def film(**changes: Any) -> Film:
    """Return a film of an even grey wall; changes replace arrays of it."""
    arrays = {
        "light": np.full((*SHAPE, 3), 0.5, np.float32),
        "albedo": np.full(SHAPE, 0.5, np.float32),
        "depth": np.full(SHAPE, 2.0, np.float32),
        "facing": np.full(SHAPE, 0.8, np.float32),
        "instance": np.zeros(SHAPE, np.int32),
        "label": np.zeros(SHAPE, np.int32),
        "shine": np.zeros(SHAPE, np.float32),
        "outside": np.zeros(SHAPE, bool),
    }
    return Film(**(arrays | changes))


def halves(left: float, right: float) -> np.ndarray:
    """Return an array whose left and right halves have two values."""
    array = np.full(SHAPE, left, np.float32)
    array[:, SHAPE[1] // 2 :] = right
    return array
