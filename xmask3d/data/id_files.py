"""Text files of label ids and masks with one number per line, the format of ScanNet and its benchmark."""

import glob
import re
import warnings
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from xmask3d.errors import UserError
from xmask3d.files import atomic_write
from xmask3d.guarded import reading

LARGEST_FILE = 1 << 30  # largest size of a text file, in bytes


def write_prediction(
    folder: Path, scene: str, labels: np.ndarray, objects: np.ndarray, ids: Sequence[int], confidences: Sequence[float]
) -> list[Path]:
    """Write the text files of ScanNet's benchmarks: `semantic/<scene>.txt`, `instance/<scene>.txt` and its masks.

    Args:
        labels: n label ids.
        objects: n object numbers, -1 for none.
        ids: label id of each object; objects with id 0 are left out.
        confidences: confidence of each object.
    """
    semantic, instance = folder / "semantic" / f"{scene}.txt", folder / "instance" / f"{scene}.txt"
    atomic_write(semantic, "".join(f"{value}\n" for value in labels.tolist()))
    for path in (instance.parent / "masks").glob(f"{glob.escape(scene)}_*.txt"):
        if re.fullmatch(rf"{re.escape(scene)}_\d{{3,}}\.txt", path.name):  # masks of an earlier export
            path.unlink()
    files, rows = [semantic, instance], []
    for number, (class_id, confidence) in enumerate(zip(ids, confidences, strict=True)):
        mask = objects == number
        if not class_id or not mask.any():
            continue
        files.append(instance.parent / "masks" / f"{scene}_{number:03}.txt")
        atomic_write(files[-1], "".join("1\n" if inside else "0\n" for inside in mask.tolist()), sync=False)
        rows.append(f"masks/{files[-1].name} {class_id} {confidence:.4f}\n")
    atomic_write(instance, "".join(rows))
    return files


def read_text(path: Path) -> bytes:
    """Read a text file. Raises `UserError` if it is missing, or larger than a scene's can be."""
    with reading(path, "a text file"):
        if path.stat().st_size > LARGEST_FILE:
            raise UserError(f"{path}: larger than {LARGEST_FILE >> 20} MiB; this is no text file of one scene")
        return path.read_bytes()


def parse_ids(path: Path, content: bytes) -> np.ndarray:
    """Parse integers, one per line, with or without a decimal point, to int64; blank lines are skipped."""
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("error")  # without it, other text would only end the reading
            values = np.fromstring(content, np.int64, sep=" ")  # ten times as fast as any other way
        lines = content.count(b"\n") + (not content.endswith(b"\n"))
        if len(values) == lines and content.strip() and not (b" " in content or b"\t" in content):
            return values
    except (ValueError, Warning):
        pass
    try:
        numbers = np.array(content.split(), np.float64)
        whole = bool((numbers == np.rint(numbers)).all() and np.isfinite(numbers).all())
        if whole and len(numbers) == sum(1 for line in content.splitlines() if line.strip()):
            return numbers.astype(np.int64)
    except ValueError:
        pass
    raise UserError(f"{path}, line {_first_bad_line(content)}: not one whole number a line")


def parse_mask(path: Path, content: bytes) -> np.ndarray:
    """Parse a mask with one 0 or 1 per line, bool."""
    codes = np.frombuffer(content, np.uint8)
    digits = codes[(codes != ord("\n")) & (codes != ord("\r"))]
    lines = content.count(b"\n") + (not content.endswith(b"\n"))
    if len(digits) == lines and ((digits == ord("0")) | (digits == ord("1"))).all():
        return digits == ord("1")  # a hundred times as fast, which matters for many masks
    return parse_ids(path, content) != 0


def _first_bad_line(content: bytes) -> int:
    for number, line in enumerate(content.splitlines(), 1):
        words = line.split()
        try:
            if words and (len(words) > 1 or not float(words[0]).is_integer()):
                return number
        except ValueError:
            return number
    return 1
