"""Study of up without cameras: fits the weights of `xmask3d.scan.upright` on rooms, and counts right answers on others.

    python -m tools.studies.upright --root data/rooms

Rooms are complete, or cut: without ceiling, without floor, with a ceiling added, halves, a corner, the lowest 1.6 m.
Each is turned at random, and the measurements of all candidates are compared by multinomial logistic regression. The
answers on validation rooms are those of `find_up` in 24 orientations, and tilted by up to 30 degrees from z.
"""

import argparse
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import torch
from scipy.spatial.transform import Rotation
from torch import Tensor

from xmask3d.data.files import read_points
from xmask3d.errors import run_tool
from xmask3d.scan.gravity import FEW, find_modes, find_places, without_cameras
from xmask3d.scan.upright import WEIGHTS, Places, measurements

RIGHT = 5  # degrees
DECAY = 3e-3  # of squared standardised weights


def rooms(root: Path, split: str) -> Iterator[tuple[str, np.ndarray]]:
    """Yield name and points of the scenes of a split."""
    for path in sorted((root / "scannet_3d" / split).glob("*.pth")):
        yield path.stem.removesuffix("_vh_clean_2"), read_points(path, lambda line: None)[0]


def variants(points: np.ndarray, rng: np.random.Generator) -> dict[str, np.ndarray]:
    """Cut a room, z up, in several ways."""
    low, high = points.min(0), points.max(0)
    size = high - low
    lid = rng.uniform(low, high, (int(600 * size[0] * size[1]), 3))
    lid[:, 2] = high[2] + rng.normal(0, 0.005, len(lid))
    lidded = np.concatenate([points, lid])
    angle = rng.uniform(0, 2 * np.pi)
    across = points[:, :2] @ (np.cos(angle), np.sin(angle))
    corner = np.where(rng.random(2) < 0.5, low[:2], high[:2])
    parts = {
        "complete": points,
        "no ceiling": points[points[:, 2] < high[2] - 0.15],
        "no floor": points[points[:, 2] > low[2] + 0.12],
        "ceiling": lidded,
        "ceiling, no floor": lidded[lidded[:, 2] > low[2] + 0.12],
        "half": points[across > np.median(across)],
        "corner": points[np.abs(points[:, :2] - corner).max(1) < 1.9],
        "lowest 1.6 m": points[points[:, 2] < low[2] + 1.6],
    }
    return {name: part for name, part in parts.items() if len(part) > 2000}


def _sampled(points: np.ndarray) -> Places:
    places = find_places(points)
    return Places(*(values[:: max(1, len(places.points) // FEW)] for values in places))


def _turned(places: Places, turn: np.ndarray) -> Places:
    return Places(places.points @ turn.T, places.normals @ turn.T, places.flat)


def fit(root: Path) -> dict[str, float]:
    """Fit the weights on the training rooms."""
    rng, values, right = np.random.default_rng(1), [], []
    for _, points in rooms(root, "train"):
        for part in variants(points, rng).values():
            turn = Rotation.random(random_state=rng).as_matrix()
            places = _turned(_sampled(part), turn)
            directions, measured = measurements(places, find_modes(places.normals[places.flat]))
            good = directions @ turn[:, 2] > np.cos(np.radians(RIGHT))
            if good.any():
                values.append(torch.tensor(measured))
                right.append(torch.tensor(good))
    spread = torch.cat(values).std(0)
    weights = torch.zeros(len(spread), dtype=torch.float64, requires_grad=True)
    optimiser = torch.optim.LBFGS([weights], max_iter=300)

    def closure() -> Tensor:
        optimiser.zero_grad()
        scores = [measured / spread @ weights for measured in values]
        losses = [s.logsumexp(0) - s[good].logsumexp(0) for s, good in zip(scores, right, strict=True)]
        loss = torch.stack(losses).mean() + DECAY * (weights**2).sum()
        loss.backward()
        return loss

    optimiser.step(closure)
    return {name: round(float(w), 2) for name, w in zip(WEIGHTS, weights.detach() / spread, strict=True)}


def count(root: Path) -> None:
    """Print how often up is right on the validation rooms, by the part of the room that is there."""
    rng, answers = np.random.default_rng(2), {}
    for _, points in rooms(root, "val"):
        for name, part in variants(points, rng).items():
            places = find_places(part)
            tilts = Rotation.from_rotvec([[*rng.normal(size=2), 0.0] for _ in range(6)])
            tilts = Rotation.from_rotvec([v / np.linalg.norm(v) * rng.uniform(0, np.pi / 6) for v in tilts.as_rotvec()])
            for kind, turns in (("24 orientations", Rotation.create_group("O")), ("tilted", tilts)):
                for turn in turns.as_matrix():
                    up, words, _ = without_cameras(_turned(places, turn), None)
                    angle = np.degrees(np.arccos(np.clip(up @ turn[:, 2], -1, 1)))
                    answers.setdefault((name, kind), []).append((angle < RIGHT, not words))
    for (name, kind), found in answers.items():
        right, sure = np.array(found).T
        print(f"{name:18} {kind:16} n {len(found):4} right {right.mean():.1%} sure {sure.mean():.1%} "
              f"right where sure {right[sure].mean():.1%}")  # fmt: skip


def main() -> None:
    """Fit and count."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--root", type=Path, default=Path("data/rooms"), help="data set in ScanNet's layout, z up")
    options = parser.parse_args()
    print("weights:", fit(options.root))
    count(options.root)


if __name__ == "__main__":
    run_tool(main)
