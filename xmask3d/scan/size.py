"""Scale of reconstructions from pictures, which have none; it is estimated from the height of a room."""

import numpy as np

from xmask3d.scan.gravity import find_up

ROOM = 2.6  # metres from floor to ceiling
ROOMS = (1.2, 4.0)  # metres; if the height of the scene is between these, its units are taken as metres
SAMPLE = 50_000


def scale_by_height(points: np.ndarray, cameras: np.ndarray | None = None) -> tuple[float, str]:
    """Estimate the metres per unit of a reconstruction without a scale, and describe the estimate.

    Args:
        points: n x 3, finite.
        cameras: m x 3 x 3 rotations, camera (x right, y down) to world, if known.
    """
    points = points[:: max(1, len(points) // SAMPLE)].astype(np.float64)
    extent = float(np.ptp(np.percentile(points, (1, 99), axis=0), axis=0).max()) if len(points) else 0.0
    if not extent:
        return 1.0, "warning: the scale is unknown; all points are in one place, or there are none"
    up = find_up(points * (5 / extent), cameras).up
    height = float(np.ptp(np.percentile(points @ up, (0.5, 99.5))))
    if height < 1e-6 * extent:
        return 1.0, "warning: nothing tells the scale; all points lie in one plane (--scale, metres a unit)"
    if ROOMS[0] <= height <= ROOMS[1]:
        return 1.0, f"no scale of its own; {height:.1f} units high as rooms are in metres, so kept (else --scale)"
    factor = float(f"{ROOM / height:.3g}")
    return factor, (
        f"warning: a reconstruction from pictures has no scale; its height of {height:.3g} units is taken for a room's "
        f"{ROOM} m (--scale {factor:g}, metres a unit); correct it with --scale"
    )
