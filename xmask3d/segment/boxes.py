"""Oriented boxes of objects: upright, and rotated about the vertical for the smallest base area."""

import numpy as np

from xmask3d.segment.answer import Answer


def boxes(answer: Answer) -> list[dict]:
    """Describe every object: class, points, confidence, and its box in metres in the scan's own frame.

    `center` is the middle, `axes` are three unit vectors (two horizontal ones, then up), `size` is the extent along
    each of them, and `corners` are the eight corners.
    """
    assert answer.objects is not None
    found = []
    for number, name in enumerate(answer.object_names or []):
        inside = answer.objects == number
        center, axes, size = oriented_box(answer.points[inside], answer.rotation)
        signs = np.array([[x, y, z] for x in (-1, 1) for y in (-1, 1) for z in (-1, 1)])
        corners = center + (signs * size / 2) @ axes
        found.append(
            {
                "object": number,
                "class": name,
                "points": int(inside.sum()),
                "confidence": round(float(answer.confidence[inside].mean()), 4),
                "center": center.round(4).tolist(),
                "size": size.round(4).tolist(),
                "axes": axes.round(6).tolist(),
                "corners": corners.round(4).tolist(),
            }
        )
    return found


def oriented_box(points: np.ndarray, rotation: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Find the upright box with the smallest base area.

    Args:
        points: n x 3.
        rotation: 3 x 3, rotates points upright.

    Returns:
        Centre (3), axes (3 x 3, one per row, the last one up) and size along each axis (3).
    """
    from scipy.spatial import ConvexHull, QhullError

    middle = points.mean(0)
    upright = (points - middle) @ rotation.T
    ground = upright[:, :2]
    try:
        outline = ground[ConvexHull(ground).vertices]
    except (QhullError, ValueError):  # fewer than three points, or on one line
        outline = ground
    edges = np.diff(np.concatenate([outline, outline[:1]]), axis=0)
    angles = np.unique(np.round(np.arctan2(edges[:, 1], edges[:, 0]) % (np.pi / 2), 6))
    cos, sin = np.cos(angles), np.sin(angles)
    turns = np.stack([np.stack([cos, sin], -1), np.stack([-sin, cos], -1)], 1)
    spread = np.ptp(np.einsum("kij,nj->kni", turns, outline), axis=1)
    turn = np.eye(3)
    turn[:2, :2] = turns[spread.prod(1).argmin()]
    turned = upright @ turn.T
    low, high = turned.min(0), turned.max(0)
    axes = turn @ rotation
    return middle + ((low + high) / 2) @ axes, axes, high - low
