"""Files of predictions as other programs write them: numbers as text, arrays as npz. Nothing in them is executed."""

import math
import zipfile
from pathlib import Path
from typing import IO

import numpy as np

from xmask3d.errors import UserError

LARGEST_FILE = 1 << 30  # bytes of text
LARGEST_ARRAYS = 1 << 33  # bytes of the arrays of an npz


def read_text(path: Path) -> bytes:
    """Read a text file. Raises `UserError` if it is missing, or larger than any scene's predictions are."""
    try:
        if path.stat().st_size > LARGEST_FILE:
            raise UserError(f"{path}: larger than {LARGEST_FILE >> 20} MiB; this is no text file of one scene")
        return path.read_bytes()
    except FileNotFoundError as error:
        raise UserError(f"{path}: missing") from error
    except OSError as error:
        raise UserError(f"{path}: cannot be read ({error.strerror})") from error


def parse_ids(path: Path, content: bytes) -> np.ndarray:
    """Parse whole numbers, one per line, with or without a decimal point, to int64; blank lines are skipped."""
    try:
        values = np.array(content.split(), np.float64)
        if len(values) == sum(1 for line in content.splitlines() if line.strip()) and (values == np.rint(values)).all():
            return values.astype(np.int64)
    except ValueError:
        pass
    raise UserError(f"{path}, line {_first_bad_line(content)}: not one whole number a line")


def parse_mask(path: Path, content: bytes) -> np.ndarray:
    """Parse a mask written as one 0 or 1 per line, bool."""
    codes = np.frombuffer(content, np.uint8)
    digits = codes[(codes != ord("\n")) & (codes != ord("\r"))]
    lines = content.count(b"\n") + (not content.endswith(b"\n"))
    if len(digits) == lines and ((digits == ord("0")) | (digits == ord("1"))).all():
        return digits == ord("1")  # a hundred times as quick, and masks are many
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


def read_npz(path: Path, names: tuple[str, ...]) -> dict[str, np.ndarray]:
    """Read the arrays of an npz that are among `names`.

    Raises:
        UserError: damaged, holding Python objects, or with an array whose header promises what the file does not hold.
    """
    try:
        with zipfile.ZipFile(path) as archive:
            sizes = {info.filename.removesuffix(".npy"): info for info in archive.infolist()}
            chosen = {name: sizes[name] for name in names if name in sizes}
            if sum(info.file_size for info in chosen.values()) > LARGEST_ARRAYS:
                raise UserError(f"{path}: its arrays would take more than {LARGEST_ARRAYS >> 30} GiB")
            arrays = {}
            for name, info in chosen.items():
                with archive.open(info) as file:
                    arrays[name] = _read_array(file, info.file_size, f"{path}: array {name}")
            return arrays
    except FileNotFoundError as error:
        raise UserError(f"{path}: missing") from error
    except (OSError, EOFError, ValueError, NotImplementedError, RuntimeError, zipfile.BadZipFile) as error:
        raise UserError(f"{path}: damaged, or not an npz ({error})") from error


def _read_array(file: IO[bytes], size: int, where: str) -> np.ndarray:
    """Read one array, whose header is believed only where it fits the size of its file."""
    readers = {1: np.lib.format.read_array_header_1_0, 2: np.lib.format.read_array_header_2_0}
    major, _ = np.lib.format.read_magic(file)
    if major not in readers:
        raise UserError(f"{where}: version {major} of the format is not understood")
    shape, fortran, kind = readers[major](file)
    if kind.hasobject or kind.kind not in "biuf":
        raise UserError(f"{where}: holds {kind}, not numbers")
    count = math.prod(shape)
    if count * kind.itemsize != size - file.tell():
        raise UserError(f"{where}: {size} bytes do not hold {shape} of {kind}")
    values = np.frombuffer(file.read(count * kind.itemsize), kind)
    return values.reshape(shape, order="F" if fortran else "C")
