"""Evidence for the up direction from a cloud's geometry, used if there are no cameras.

The surfaces of a room share about three normals, and up is one of these or its opposite. For each candidate, nine
measurements of the room are weighed: rooms have a typical height and are lower than wide, the floor is visible
everywhere, seats and tables are near the floor rather than the ceiling, nothing hangs in the upper middle, and edges
and legs are vertical. The weights come from a multinomial logistic regression on 30 furnished rooms of Rooms, complete
and in parts, with and without ceilings and floors (`tools/studies/upright.py`).
"""

from typing import NamedTuple

import numpy as np
from scipy.ndimage import uniform_filter

ALIGNED, LEVEL = np.cos(np.radians(12)), np.sin(np.radians(12))
CELL = 0.2  # metres between the columns of a room's plan
REACH = 250.0  # half the size of a plan, in metres
END = 0.15  # thickness of the floor's and the ceiling's layer, in metres
HIGH, SPREAD = 2.6, 0.25  # mean and standard deviation of a room's height, in metres
WEIGHTS = {
    "height": 0.93, "floor": 0.54, "ceiling": 0.53, "ends": 3.01, "seats": 19.05, "hanging": -8.43, "upper": -6.79,
    "flatness": -3.25, "edges": 17.06,
}  # fmt: skip


class Places(NamedTuple):
    """Sample of a cloud.

    Attributes:
        points: n x 3 metres.
        normals: n x 3 unit vectors; for edges and noise, the direction of least variance.
        flat: n bool; False for edges and noise.
    """

    points: np.ndarray
    normals: np.ndarray
    flat: np.ndarray


def evidence(places: Places, axes: list[np.ndarray]) -> tuple[np.ndarray, np.ndarray]:
    """Score each axis and its opposite as the up direction.

    Args:
        places: sample of the cloud.
        axes: m unit vectors, the normals that most surfaces share.

    Returns:
        2 m x 3 directions, and their scores: log probabilities up to a constant.
    """
    directions, values = measurements(places, axes)
    return directions, values @ np.array(list(WEIGHTS.values()))


def measurements(places: Places, axes: list[np.ndarray]) -> tuple[np.ndarray, np.ndarray]:
    """Return each axis and its opposite, 2 m x 3, and the measurements of the room with that axis up, 2 m x 9."""
    lowest = min(_extent(places.points @ axis) for axis in axes)
    directions, values = [], []
    for axis in axes:
        plan = _Plan(places.points, axis, axes)
        edges = float((np.abs(places.normals @ axis) < LEVEL)[~places.flat].mean()) if (~places.flat).any() else 0.0
        for up in (axis, -axis):
            measured = plan.measure(places, up) | {"edges": edges}
            measured["flatness"] -= np.log(lowest)
            directions.append(up)
            values.append([measured[name] for name in WEIGHTS])
    return np.array(directions), np.array(values)


class _Plan:
    """Columns of a cloud along an axis."""

    def __init__(self, points: np.ndarray, axis: np.ndarray, axes: list[np.ndarray]) -> None:
        beside = next((other for other in axes if abs(other @ axis) < LEVEL), np.eye(3)[np.argmin(np.abs(axis))])
        first = beside - axis * (axis @ beside)
        first /= np.linalg.norm(first)
        place = points @ np.stack([first, np.cross(axis, first)], 1)
        middle = np.median(place, axis=0)
        place = place.clip(middle - REACH, middle + REACH)  # a single stray point far away would make the plan huge
        self._columns = tuple(np.floor((place - place.min(0)) / CELL).astype(int).T + 2)
        self._shape = tuple(int(column.max()) + 3 for column in self._columns)
        self._seen = self._cells(np.ones(len(points), bool))
        self._middle = (uniform_filter(self._seen.astype(float), 5) > 0.96) & self._seen

    def _cells(self, chosen: np.ndarray) -> np.ndarray:
        cells = np.zeros(self._shape, bool)
        cells[tuple(column[chosen] for column in self._columns)] = True
        return cells

    def _share(self, chosen: np.ndarray) -> float:
        return float(self._cells(chosen).sum() / self._seen.sum())

    def measure(self, places: Places, up: np.ndarray) -> dict[str, float]:
        """Measure the room as it stands if `up` points up."""
        heights = places.points @ up
        low, high = np.percentile(heights, (0.5, 99.5))
        height = max(high - low, 1e-6)
        above, below, part = heights - low, high - heights, (heights - low) / height
        end = min(0.12 / height, 0.3)
        inner = (part >= end) & (part <= 1 - end)
        level = places.flat & (np.abs(places.normals @ up) > ALIGNED) & (above > 0.2) & (below > 0.2)
        hanging = self._cells((part > 0.66) & (part < 1 - end)) & self._middle
        return {
            "height": -min((height - HIGH) ** 2 / (2 * SPREAD**2), 4.0),
            "floor": self._share(above < END),
            "ceiling": self._share(below < END),
            "ends": float((part < end).mean() - (part > 1 - end).mean()),
            "seats": float((level & (above > 0.35) & (above < 0.85)).sum() / max(places.flat.sum(), 1)),
            "hanging": float(hanging.sum() / max(self._middle.sum(), 1)),
            "upper": self._share(inner & (part > 0.5)),
            "flatness": float(np.log(height)),
        }


def _extent(values: np.ndarray) -> float:
    return max(float(np.ptp(np.percentile(values, (0.5, 99.5)))), 1e-6)
