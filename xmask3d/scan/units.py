"""Unit of a cloud, guessed from its extent."""

import numpy as np


def guess_units(points: np.ndarray, notes: list[str]) -> float:
    """Guess the units per metre: millimetres or centimetres if the extent does not suit a room or building in metres.

    Args:
        points: n x 3, finite.
        notes: list to which a sentence is added if the guess is not metres, or may be wrong.
    """
    low, high = np.percentile(points[:: max(1, len(points) // 100_000)], (1, 99), axis=0)
    longest, shortest = float((high - low).max()), float((high - low).min())
    if longest > 1500:
        notes.append(f"{longest:.0f} units across: taken as millimetres (--unit m to refuse)")
        return 1000.0
    if longest > 150 and shortest > 40:
        notes.append(f"{longest:.0f} units across: taken as centimetres (--unit m to refuse)")
        return 100.0
    if not longest:
        notes.append("warning: all points lie in one place")
    elif longest < 0.3:
        notes.append(f"only {longest:.3g} m across; if that is wrong, give the unit with --unit")
    return 1.0
