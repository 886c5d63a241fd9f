"""Pairing of colour, depth, pose and calibration files of a frame, by complete names or else by a number."""

import re
from collections import Counter, defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

NUMBER = re.compile(r"\d+(?:\.\d+)?")
WORDS = re.compile(r"\d+(?:\.\d+)?|[a-z]+")


@dataclass(frozen=True)
class NameKeys:
    """Keys of a file's frame; files of the same frame share a key of one kind.

    Attributes:
        whole: words and numbers of the name, without those that name its role.
        varying: the same without words that all files of the role have at the same position (i0 and d0 of
            Matterport3D).
        number: last number that distinguishes the files of a folder, if their names differ in numbers only.
    """

    whole: str
    varying: str
    number: str


KINDS = ("whole", "varying", "number")


def frame_order(key: str) -> tuple[float, str]:
    """Sort frames by their number, others by name, comparing the numbers in it by value."""
    try:
        return float(key), key
    except ValueError:
        return float("inf"), NUMBER.sub(lambda number: number[0].zfill(12), key)


def name_keys(paths: Sequence[Path], role_words: set[str]) -> tuple[dict[Path, NameKeys], list[str]]:
    """Return the keys of the files of a role, and the reason if numbers do not distinguish some of them."""
    words = {path: [_plain(w) for w in WORDS.findall(path.stem.lower()) if w not in role_words] for path in paths}
    shortest = min((len(row) for row in words.values()), default=0)
    constant = {
        place
        for place in (*range(shortest), *range(-shortest, 0))
        if len({row[place] for row in words.values()}) == 1 and next(iter(words.values()))[place].isalpha()
    }
    numbers, unclear = _numbers(paths, role_words)
    keys = {}
    for path, row in words.items():
        kept = [w for i, w in enumerate(row) if i not in constant and i - len(row) not in constant]
        keys[path] = NameKeys(" ".join(row), " ".join(kept), numbers[path])
    return keys, unclear


def _plain(word: str) -> str:
    """Return a number without leading zeros."""
    return re.sub(r"^0+(?=\d)", "", word)


def _numbers(paths: Sequence[Path], role_words: set[str]) -> tuple[dict[Path, str], list[str]]:
    """Find the last number in each name that distinguishes the files of a folder, if names differ in numbers only.

    The number is returned without leading zeros; if there is none, the name itself is returned.
    """
    alike: dict[tuple[Path, str], list[Path]] = defaultdict(list)
    for path in paths:
        alike[path.parent, NUMBER.sub("#", path.name)].append(path)
    keys: dict[Path, str] = {}
    unclear = []
    for group in alike.values():
        stems = [".".join(w for w in path.stem.split(".") if w.lower() not in role_words) for path in group]
        numbers = [[number.lstrip("0") or "0" for number in NUMBER.findall(stem)] for stem in stems]
        columns = list(zip(*(row[::-1] for row in numbers), strict=False)) or [tuple(stems)]
        distinct = [column for column in columns if len(set(column)) == len(column)]
        if not distinct:
            row = next(i for i, value in enumerate(columns[0]) if value in columns[0][:i])
            first, second = group[columns[0].index(columns[0][row])], group[row]
            unclear.append(f"{first} and {second.name} seem to be of one frame, {columns[0][row]}")
        keys |= dict(zip(group, [*distinct, columns[0]][0], strict=True))
    return keys, unclear


def best_kind(first: Mapping[Path, NameKeys], second: Mapping[Path, NameKeys]) -> str:
    """Choose the kind of key that most files of two roles have in common; in a tie, the complete name."""

    def common(kind: str) -> int:
        return len({getattr(key, kind) for key in first.values()} & {getattr(key, kind) for key in second.values()})

    return max(KINDS, key=common)


def twice_by_number(keys: Mapping[Path, NameKeys]) -> str | None:
    """Describe two files of a folder that a number alone would assign to the same frame."""
    seen: dict[tuple[Path, str], Path] = {}
    for path, key in keys.items():
        first = seen.setdefault((path.parent, key.number), path)
        if first != path and first.stem != path.stem:
            return f"{first} and {path.name} seem to be of one frame, {key.number}"
    return None


def frame_names(
    color: dict[Path, NameKeys], depth: dict[Path, NameKeys], kind: str
) -> tuple[dict[Path, str], dict[Path, str]]:
    """Name frames, one per file: by the number if it distinguishes complete frames, else by the picture's name."""
    keys = {path: getattr(key, kind) for path, key in (color | depth).items()}
    complete = {keys[path] for path in color} & {keys[path] for path in depth}
    number_of = {keys[path]: key.number for path, key in (depth | color).items()}
    stem_of = {keys[path]: path.stem for path in (*depth, *color)}
    counts = Counter(number_of[key] for key in complete)
    if max(counts.values(), default=0) > 1:
        names = stem_of
    else:  # files without a partner must not take the number of a complete frame
        names = {key: number if key in complete or number not in counts else stem_of[key]
                 for key, number in number_of.items()}  # fmt: skip
    return {path: names[keys[path]] for path in color}, {path: names[keys[path]] for path in depth}


def names_by(
    keys: Mapping[Path, NameKeys], frames: Mapping[Path, str], frame_keys: Mapping[Path, NameKeys]
) -> dict[Path, str]:
    """Assign further files (poses, calibrations) to their frames, and leave out the others."""
    kind = best_kind(keys, frame_keys)
    known: dict[str, set[str]] = defaultdict(set)
    for path, name in frames.items():
        known[getattr(frame_keys[path], kind)].add(name)
    fitting = {path: known.get(getattr(key, kind), set()) for path, key in keys.items()}
    return {path: next(iter(names)) for path, names in fitting.items() if len(names) == 1}
