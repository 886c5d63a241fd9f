"""Make the recording that comes with the package: colour, depth and poses of a room that looks like a scan."""

import argparse
import io
from pathlib import Path

import numpy as np
from PIL import Image

from xmask3d.cli.arguments import FURNITURE_CACHE
from xmask3d.errors import run_tool
from xmask3d.rooms.generate import find_furniture, models_of
from xmask3d.rooms.room_types import CYCLE
from xmask3d.rooms.scanned.build import build_scanned
from xmask3d.rooms.scanned.furnishing import furnish_scanned
from xmask3d.rooms.scanned.recording import record
from xmask3d.rooms.scanned.settings import ScanSettings
from xmask3d.rooms.viewpoints import INTRINSICS
from xmask3d.rooms.writer import matrix_text

FREE = ("CC0 1.0", "made by rule")
"""Licences of the furniture that is taken, so that the recording may be used without naming anyone."""


def make_example(out: Path, furniture: Path | None, kind: str, seed: int, views: int) -> int:
    """Furnish a room with validation furniture, film it, and write the frames.

    Args:
        out: folder to write.
        furniture: folder of the furniture library, or None for furniture made by rule only.
        kind: kind of the room.
        seed: seed of the random generator.
        views: number of frames.

    Returns:
        Size of the folder in bytes.
    """
    rng = np.random.default_rng([seed, *kind.encode()])
    models = [model for model in models_of(furniture, seed)["val"] if model.licence in FREE]
    settings = ScanSettings()
    room = build_scanned(furnish_scanned(kind, "val", models, settings, rng), settings, rng)
    for name in ("color", "depth", "pose"):
        (out / name).mkdir(parents=True, exist_ok=True)
    (out / "intrinsics.txt").write_text(matrix_text(INTRINSICS), encoding="utf-8")
    for index, shot in enumerate(record(room, views, settings, rng).shots):
        (out / "color" / f"{index:02d}.jpg").write_bytes(shot.jpeg)
        (out / "pose" / f"{index:02d}.txt").write_text(matrix_text(shot.pose), encoding="utf-8")
        depth = io.BytesIO()
        Image.fromarray(shot.depth).save(depth, "PNG", optimize=True)
        (out / "depth" / f"{index:02d}.png").write_bytes(depth.getvalue())
    return sum(path.stat().st_size for path in out.rglob("*") if path.is_file())


def main() -> int:
    """Parse arguments and write the recording."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("out", type=Path, help="folder to write")
    parser.add_argument("--kind", choices=sorted(set(CYCLE)), default="living room", help="default: %(default)s")
    parser.add_argument("--seed", type=int, default=0, help="same seed, same room (default %(default)s)")
    parser.add_argument("--views", type=int, default=20, metavar="N", help="frames (default %(default)s)")
    parser.add_argument("--furniture", default="auto", help="as of xmask3d rooms (default %(default)s)")
    arguments = parser.parse_args()
    furniture = find_furniture(arguments.furniture, FURNITURE_CACHE, required=True)
    size = make_example(arguments.out, furniture, arguments.kind, arguments.seed, arguments.views)
    print(f"{arguments.out}: {arguments.views} frames, {size / 1e6:.2f} MB")
    return 0


if __name__ == "__main__":
    run_tool(main)
