"""Conversion of S3DIS as released (Area_x/room/Annotations/*.txt) to scene files in our layout."""

import logging
from pathlib import Path

import numpy as np

from xmask3d.data.files import write_points
from xmask3d.errors import UserError

log = logging.getLogger(__name__)

CLASSES = (
    "ceiling", "floor", "wall", "beam", "column", "window", "door",
    "table", "chair", "sofa", "bookcase", "board", "clutter",
)  # fmt: skip
CLUTTER = len(CLASSES) - 1


def find_rooms(raw: Path) -> list[Path]:
    """List the room folders of a release, in order."""
    rooms = sorted(folder.parent for folder in Path(raw).glob("Area_*/*/Annotations"))
    if not rooms:
        raise UserError(f"{raw}: no rooms (expected Area_<n>/<room>/Annotations/*.txt)")
    return rooms


def read_room(folder: Path) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Read a room: points n x 3 float32, colours n x 3 in [-1, 1], class ids n (12 is clutter and all other things).

    Raises:
        UserError: there is no annotation file, or one without points.
    """
    files = sorted((folder / "Annotations").glob("*.txt"))
    if not files:
        raise UserError(f"{folder / 'Annotations'}: no annotation files")
    rows, labels = [], []
    for path in files:
        name = path.stem.split("_")[0]
        part = _read_points(path)
        rows.append(part)
        labels.append(np.full(len(part), CLASSES.index(name) if name in CLASSES else CLUTTER))
    points = np.concatenate(rows)
    return points[:, :3].astype(np.float32), (points[:, 3:] / 127.5 - 1).astype(np.float32), np.concatenate(labels)


def _read_points(path: Path) -> np.ndarray:
    """Read n x 6 numbers of one object, without the few lines of the release that have a stray character."""
    lines = path.read_bytes().splitlines()
    words = b" ".join(lines).split()
    if not words:
        raise UserError(f"{path}: is empty; copy it again from the release")
    # Lines are counted too, because a short one and a long one could compensate each other.
    if all(len(line.split()) in (0, 6) for line in lines):
        try:
            points = np.array(words, np.float64).reshape(-1, 6)
        except ValueError:
            pass
        else:
            if np.isfinite(points).all():
                return points
    good, damaged = [], 0
    for number, line in enumerate(lines, 1):
        numbers = _numbers(line)
        if numbers is None:
            damaged += 1
            continue
        if not numbers:  # an empty line
            continue
        if len(numbers) != 6 or not np.isfinite(numbers).all():
            raise UserError(
                f"{path}: line {number} is not 'x y z r g b' in finite numbers; copy it again from the release"
            )
        good.append(numbers)
    if not good:
        raise UserError(f"{path}: no lines 'x y z r g b'; copy it again from the release")
    log.warning("%s: %d damaged lines left out", path, damaged)
    return np.array(good)


def _numbers(line: bytes) -> list[float] | None:
    try:
        return [float(word) for word in line.split()]
    except ValueError:
        return None


def prepare_room(folder: Path, out: Path, test_area: int = 5) -> Path:
    """Write a room as `s3dis_3d/{train,val}/Area_<n>_<room>.pth`, unless the file exists."""
    area = folder.parent.name
    split = "val" if area == f"Area_{test_area}" else "train"
    path = out / "s3dis_3d" / split / f"{area}_{folder.name}.pth"
    if not path.is_file():
        write_points(path, *read_room(folder))
    return path
