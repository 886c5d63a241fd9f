"""Choice of a cloud's up axis if its geometry is ambiguous: the network is more confident about an upright room."""

from collections.abc import Callable
from dataclasses import replace

import numpy as np

from xmask3d.data.scene import Scene
from xmask3d.geometry.voxels import quantise
from xmask3d.scan.gravity import NAMES, rotation_to_z
from xmask3d.scan.scan import Scan

SPACING = 0.04  # metres between the points to classify
WEIGHT = 12.0  # weight of the mean confidence, relative to the logarithm of the geometry's probability


def settle_up(scan: Scan, confidence: Callable[[Scan], float]) -> None:
    """Rotate a scan with an uncertain up axis to the best guess by geometry and network together.

    Args:
        scan: scan to change in place; its `lines` report the change.
        confidence: mean confidence of the network in a scan without views.
    """
    if not len(scan.guesses):
        return
    scene, frame = scan.scene, scan.scene.points @ scan.rotation.astype(np.float32)
    kept = quantise(np.floor(frame.astype(np.float64) / SPACING)).first_point
    scores = []
    for guess in scan.guesses:
        points = (frame[kept] @ rotation_to_z(guess[:3]).T).astype(np.float32)
        part = Scene(scene.name, points, scene.colors[kept], None, [])
        scores.append(guess[3] + WEIGHT * confidence(replace(scan, scene=part)))
    best, before = int(np.argmax(scores)), scan.rotation
    scan.rotation = rotation_to_z(scan.guesses[best, :3])
    name = max(NAMES, key=lambda key: float(np.dot(NAMES[key], scan.guesses[best, :3])))
    if best:
        scene.points = (frame @ scan.rotation.T).astype(np.float32)
        scan.lines.append(f"warning: the model knows more with {name} up; turned so (--up, if that is wrong)")
    else:
        scan.rotation = before
        scan.lines.append(f"the model's confidence leaves {name} up")
    scan.guesses = scan.guesses[:0]
