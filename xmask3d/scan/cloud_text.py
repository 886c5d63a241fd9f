"""Clouds as lines of numbers, whose columns are identified by titles or by their values."""

import re
import warnings
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import TextIO

import numpy as np

from xmask3d.errors import UserError
from xmask3d.scan.cloud_raw import Raw, to_bytes

TEXT_SUFFIXES = (".xyz", ".txt", ".pts", ".asc", ".csv")
TITLES = {
    "x": "x px posx pointx coordx coordinatex xcoord xcoordinate east easting",
    "y": "y py posy pointy coordy coordinatey ycoord ycoordinate north northing",
    "z": "z pz posz pointz coordz coordinatez zcoord zcoordinate height elevation",
    "r": "r red rf colorr colourr diffusered",
    "g": "g green gf colorg colourg diffusegreen",
    "b": "b blue bf colorb colourb diffuseblue",
}
"""Titles of columns, in lower case without spaces and punctuation."""
DEGREES = {"lat", "latitude", "lon", "lng", "long", "longitude"}
"""Titles of columns with geographic coordinates."""
NUMBER = re.compile(r"[-+]?(\d+\.?\d*|\.\d+)([eE][-+]?\d+)?|[-+]?(nan|inf)", re.IGNORECASE)
SAMPLE = 100_000  # number of lines from which columns are identified
LONGEST = 1 << 16  # number of characters in a line
FEW = 100  # largest number of different integers in a column of labels


def read_text(path: Path, units: float | None) -> Raw:
    """Read lines of x y z, together with colours and other numbers in any order.

    Numbers are separated by spaces, tabs, commas or semicolons; they may have a decimal comma if commas do not separate
    them. Lines of a single number, which state how many points follow, are skipped.

    Args:
        path: the file.
        units: units per metre, if known.
    """
    try:
        encoding = "utf-16" if path.open("rb").read(2) in (b"\xff\xfe", b"\xfe\xff") else "utf-8-sig"
        with path.open(encoding=encoding, errors="replace") as file:
            head, titles, announced = [], [""], 0
            for line in _lines(file):
                numbers = _count(line)
                if numbers > 1:
                    head.append(line)
                elif numbers and not head and line.strip().isdigit():
                    announced = int(line)
                elif not numbers and line.strip():
                    if head:
                        break
                    titles.append(line)
                if len(head) == 50:
                    break
        with path.open(encoding=encoding, errors="replace") as file, warnings.catch_warnings():
            warnings.simplefilter("ignore")  # numpy warns about a file without data; the error below is clearer
            comma, parting = _separators(head)
            _refuse_two_commas(path, head, titles[-1])
            table = np.loadtxt(_rows(_lines(file), len(titles) - 1, comma, parting), ndmin=2, comments=("#", "//"))
    except (OSError, ValueError) as error:
        raise UserError(f"{path}: not lines of x y z [r g b] ({str(error)[:100]})") from error
    if not table.size:
        if len(titles) > 1:
            raise UserError(f"{path}: not lines of x y z [r g b] (it has no line of numbers)")
        return Raw(np.zeros((0, 3)), None, [], units)
    width = table.shape[1]
    if width < 3:
        raise UserError(f"{path}: lines have {width} numbers, expected x y z [r g b]")
    try:
        named = _by_titles(titles[-1], width)
    except ValueError as error:
        raise UserError(f"{path}: {error}") from error
    if named:
        position, color, notes = named
    else:
        first = int(width > 3 and len(table) > 2 and bool((np.diff(table[:, 0]) == 1).all()))  # numbers of the lines
        position, color, notes = _by_numbers(table[:, first:], path.suffix.lower() == ".pts")
        position, color = [first + column for column in position], [column + first for column in color]
        if first:
            notes = ["the first number of each line counts the lines and is not used", *notes]
    if announced > len(table):
        notes = [*notes, f"warning: {announced:,} points are announced, and {len(table):,} are there; cut off?"]
    colors = to_bytes(table[:, color], notes) if color else None
    return Raw(table[:, position], colors, notes, units)


def _count(line: str) -> int:
    """Count the numbers in a line; 0 if it contains anything else except a comment."""
    words = _split(re.split("#|//", line)[0], ";,")
    return len(words) if all(NUMBER.fullmatch(word) for word in words) else 0


def _split(line: str, parting: str) -> list[str]:
    return [word for word in re.split(f"[{parting}\\s]+", line.strip()) if word]


def _separators(lines: list[str]) -> tuple[bool, str]:
    """Detect the decimal comma, and the separators besides spaces."""
    semicolons = any(";" in line for line in lines)
    words = [word for line in lines for word in _split(line, ";")]
    inside = all(re.fullmatch(r"[-+]?\d*(,\d+)?([eE][-+]?\d+)?|[-+]?nan", word, re.IGNORECASE) for word in words)
    spaced = semicolons or (bool(lines) and min(len(_split(line, ";")) for line in lines) >= 3)
    return inside and spaced and any("," in word for word in words), ";" if semicolons else ","


def _refuse_two_commas(path: Path, lines: list[str], titles: str) -> None:
    """Refuse lines such as 1,5,2,3,0,7 whose commas seem to be decimal marks too: every second number is a fraction.

    Fractions have no sign. They show by zeros before them, by having the same number of digits everywhere, or by titles
    that are fewer than the numbers; titles of all numbers say that none is a fraction.
    """
    rows = [line.strip().split(",") for line in lines]
    if not rows or any(len(row) < 6 or not all(re.fullmatch(r"[-+]?\d+", word) for word in row) for row in rows):
        return
    names = [re.sub(r"[^a-z]", "", name.lower()) for name in titles.split(",")]
    titled = {"x", "y", "z"} <= set(names)
    fractions = [word for row in rows for word in row[1:6:2]]
    if any(word[0] in "+-" for word in fractions) or (titled and len(names) == len(rows[0])):
        return
    padded = sum(any(re.fullmatch(r"0\d+", row[column]) for row in rows) for column in (1, 3, 5)) > 1
    if padded or titled or len({len(word) for word in fractions}) == 1:
        raise UserError(
            f"{path}: commas part its numbers and seem to be decimal marks too ({lines[0].strip()[:40]}); export it "
            "with decimal points, or with semicolons between the numbers"
        )


def _lines(file: TextIO) -> Iterator[str]:
    """Read lines of a bounded length. Raises `ValueError` for a longer one, which would take minutes to take apart."""
    for line in iter(partial(file.readline, LONGEST + 1), ""):
        if len(line) > LONGEST:
            raise ValueError(f"a line of more than {LONGEST} characters")
        yield line


def _rows(lines: Iterator[str], skip: int, comma: bool, parting: str) -> Iterator[str]:
    """Read lines of several numbers, separated by spaces, with decimal points."""
    table = str.maketrans({"," if comma else parting: "." if comma else " ", ";": " "})
    for line in lines:
        if skip and line.strip() and not _count(line):
            skip -= 1
            continue
        line = line.translate(table)
        if " " in line.strip() or "\t" in line.strip():
            yield line


def _by_titles(line: str, width: int) -> tuple[list[int], list[int], list[str]] | None:
    """Find the columns x y z and r g b (or none) by titles, and a note; None if the titles do not name them."""
    line = re.sub(r"\(.*?\)|\[.*?\]", "", line.strip().lstrip("#/!% "))
    for parting in (";", ",", "\t", r"\s"):
        names = [re.sub(r"[^a-z0-9]", "", word.lower()) for word in re.split(f"{parting}+", line.strip(" \t;,\n"))]
        if len(names) == width:
            break
    else:
        return None
    found = {
        key: next((i for i, name in enumerate(names) if name in known.split()), -1) for key, known in TITLES.items()
    }
    position, color = [found[key] for key in "xyz"], [found[key] for key in "rgb"]
    if min(position) < 0:
        if DEGREES & set(names):
            raise ValueError("latitude and longitude are no metres; project them, as to UTM")
        return None
    used = {*position, *color}
    notes = [f"columns by their titles; {', '.join(names[i] for i in range(width) if i not in used)} not used"]
    return position, color if min(color) >= 0 else [], notes if len(used - {-1}) < width else []


def _by_numbers(table: np.ndarray, intensity_first: bool) -> tuple[list[int], list[int], list[str]]:
    """Find columns of x y z and of r g b (or none), and notes on how the columns are read where that is a guess.

    Colours come after x y z, unless the first three numbers alone are whole and in 0..255.
    """
    rows = table[:: max(1, len(table) // SAMPLE)]
    rows = rows[np.isfinite(rows).all(1)]
    width, position = table.shape[1], [0, 1, 2]
    color, notes = _after_position(rows, intensity_first)
    if width < 6 or not len(rows):
        return position, color, notes
    first, second = rows[:, :3], rows[:, 3:6]
    as_bytes = first.min() >= 0 and _are_whole(first) and 1 < first.max() <= 255
    as_shares = first.min() >= 0 and first.max() <= 1 and not (_are_whole(second) and second.max() > 1)
    if _are_normals(second) or not (as_bytes or as_shares):
        return position, color, notes
    if as_bytes and (second.min() < 0 or (not _are_whole(second) and second.max() > 1.02)):
        said = f"{width} numbers a line, the first three whole and in 0..255: read as r g b x y z"
        return [3, 4, 5], position, [f"{said}{', the others are not used' * (width > 6)}"]
    titles = "r g b x y z" if width == 6 else "with r g b and x y z in their places"
    hint = f"warning: the first three numbers of each line could be colours; if they are, put a line of titles {titles}"
    return position, color, [*notes, f"{hint} above them"]


def _after_position(rows: np.ndarray, intensity_first: bool) -> tuple[list[int], list[str]]:
    """Find columns of r g b (or none) after x y z, and a note on how the columns are read where that is a guess."""
    width = rows.shape[1]
    roles, rest = ["x", "y", "z", *["-"] * (width - 3)], list(range(3, width))
    if width == 3 or not len(rows):
        return [], []
    for i in range(3, width - 2):
        if _are_normals(rows[:, i : i + 3]):
            roles[i : i + 3], rest = ["nx", "ny", "nz"], [j for j in rest if not i <= j < i + 3]
            break
    color: list[int] = []
    while len(rest) >= 3 and not color:
        enough = len(rest) > 3 + intensity_first
        if enough and (_are_colors(rows[:, rest[:3]]) or _are_colors(rows[:, rest[-4:-1]])) and _is_label(rows, rest):
            roles[rest[-1]] = "alpha" if np.ptp(rows[:, rest[-1]]) == 0 and rows[0, rest[-1]] in (1, 255) else "label"
            rest.pop()
        elif _are_colors(rows[:, rest[-3:]]):
            color = rest[-3:]
        elif _is_label(rows, rest):
            roles[rest.pop()] = "label"
        else:
            break
    for i, name in zip(color, "rgb", strict=bool(color)):
        roles[i] = name
    if len(rest) == 4 and color:
        roles[rest[0]] = "intensity"
    if width == 6 and not color:
        return [], ["6 numbers a line: read as x y z; three of the others are no colours (normals?)"]
    if not color:
        return [], [f"{width} numbers a line: read as x y z, the others are not used{' (normals?)' * ('nx' in roles)}"]
    return color, [f"{width} numbers a line: read as {' '.join(roles)}"] if width > 6 else []


def _are_whole(values: np.ndarray) -> bool:
    return bool((values == np.rint(values)).all())


def _are_normals(values: np.ndarray) -> bool:
    """Return True for normals: n x 3 finite numbers, nearly all of length 1, but not only pure red, green and blue."""
    unit = np.abs(np.linalg.norm(values, axis=1) - 1) < 0.02
    zero = (values == 0).all(1)  # zeros stand for points without a normal
    return bool(unit.any() and (unit | zero).mean() > 0.95 and not np.isin(values, (0, 1)).all())


def _are_colors(values: np.ndarray) -> bool:
    """Return True for possible colours: n x 3 finite numbers, none below 0, that are integers or about 0..1."""
    if values.min() < 0:
        return False
    return bool(
        values.max() <= 65535
        if _are_whole(values)
        else np.quantile(values, 0.98) <= 2 or np.quantile(values, 0.98) > 16
    )


def _is_label(rows: np.ndarray, rest: list[int]) -> bool:
    """Return True if the last of some columns has few different integers, fewer than another column has."""
    last = rows[:, rest[-1]]
    different = len(np.unique(last))
    more = max(len(np.unique(rows[:, i])) for i in rest[:-1])
    return _are_whole(last) and bool(different <= FEW and different < more)
