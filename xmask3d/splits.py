"""Benchmarks: class names, the base/novel split, and label ids of files as lookup tables (paper section 4.1)."""

import difflib
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np

from xmask3d.errors import UserError
from xmask3d.guarded import parse_yaml, read_text
from xmask3d.resources import class_lists, find_file

MAX_ID = 1 << 20
"""Largest label id: tables have an entry for each."""


@dataclass(frozen=True)
class Benchmark:
    """List of K classes, C of them base.

    There are three kinds of ids: *file ids* (used in 3D files and label pictures), *class ids* 0..K-1 with K = ignored,
    and *training ids* 0..C-1 (rank among the base classes) with C = everything else.

    Attributes:
        name: name, such as "scannet20/B15N4".
        class_names: K names, which are also the text prompts.
        groups: sorted class ids by the name of their group. base and novel together are all of 0..K-1. Others are
            defined in the class list, such as foreground, or head, common and tail by frequency.
        file_ids_3d, file_ids_2d: id of each class in 3D files and in label pictures.
        prompts: named lists of sentences that may replace some names at test time, {list: {class name: sentence}}.
    """

    name: str
    class_names: tuple[str, ...]
    groups: dict[str, tuple[int, ...]]
    file_ids_3d: tuple[int, ...]
    file_ids_2d: tuple[int, ...]
    prompts: dict[str, dict[str, str]] = field(default_factory=dict)

    def __post_init__(self) -> None:
        everything = sorted((*self.base, *self.novel))
        if everything != list(range(len(self.class_names))):
            raise UserError(f"benchmark {self.name}: base and novel must be disjoint and cover all classes")

    @property
    def base(self) -> tuple[int, ...]:
        """Sorted ids of the C classes with labels in training."""
        return self.groups["base"]

    @property
    def novel(self) -> tuple[int, ...]:
        """Sorted ids of the other classes."""
        return self.groups["novel"]

    @property
    def num_classes(self) -> int:
        """Number of classes, K."""
        return len(self.class_names)

    @property
    def num_base(self) -> int:
        """Number of base classes, C."""
        return len(self.base)

    @property
    def base_names(self) -> list[str]:
        """Names of the C base classes in the order of training ids."""
        return [self.class_names[i] for i in self.base]

    @property
    def novel_mask(self) -> np.ndarray:
        """Mask of novel classes, K bool."""
        return np.isin(np.arange(self.num_classes), self.novel)

    def test_prompts(self, prompt_list: str | None = None) -> list[str]:
        """Return K strings to encode at test time: the names, or the entries of a named list of `prompts`."""
        if prompt_list is None:
            return list(self.class_names)
        if prompt_list not in self.prompts:
            known = ", ".join(self.prompts) or "none"
            raise UserError(f"benchmark {self.name} has no prompt list '{prompt_list}' (known: {known})")
        return [self.prompts[prompt_list].get(name, name) for name in self.class_names]

    @cached_property
    def _table_3d(self) -> np.ndarray:
        return _lookup(self.file_ids_3d)

    @cached_property
    def _table_2d(self) -> np.ndarray:
        return _lookup(self.file_ids_2d)

    def classes_of_points(self, file_ids: np.ndarray) -> np.ndarray:
        """Map ids of a 3D file (any shape, integer or float; -100, 255 and unknown ids are ignored) to class ids."""
        return _apply(self._table_3d, file_ids, self.num_classes)

    def classes_of_pixels(self, file_ids: np.ndarray) -> np.ndarray:
        """Map ids of a label picture (any shape) to class ids."""
        return _apply(self._table_2d, file_ids, self.num_classes)

    def training_labels(self, classes: np.ndarray) -> np.ndarray:
        """Map class ids (any shape, 0..K) to training ids 0..C."""
        table = np.full(self.num_classes + 1, self.num_base, np.int64)
        table[list(self.base)] = np.arange(self.num_base)
        return table[classes]

    def binary_labels(self, classes: np.ndarray) -> np.ndarray:
        """Map class ids (any shape, 0..K) to 1 base, 0 novel, -1 ignored."""
        table = np.full(self.num_classes + 1, -1, np.int64)
        table[list(self.base)] = 1
        table[list(self.novel)] = 0
        return table[classes]


def _lookup(file_ids: tuple[int, ...]) -> np.ndarray:
    """Make a table from file ids to class ids; ids without a class map to K."""
    table = np.full(max(file_ids) + 2, len(file_ids), np.int64)
    table[list(file_ids)] = np.arange(len(file_ids))
    return table


def _apply(table: np.ndarray, file_ids: np.ndarray, ignored: int) -> np.ndarray:
    assert table[-1] == ignored
    # As unsigned numbers, negative ids are the largest, so a single comparison finds all ids outside the table.
    ids = np.ascontiguousarray(file_ids, np.int64).view(np.uint64)
    return table.take(np.minimum(ids, len(table) - 1).view(np.int64))


def load_benchmark(name: str, folder: Path | None = None) -> Benchmark:
    """Load "scannet20/B15N4" and others from `dataset/scannet20.yaml`.

    Args:
        name: class list and split; a list of your own is given by its path without `.yaml`, as in "lists/mine/B3N2".
        folder: shipped class lists.

    Raises:
        UserError: the list or split is unknown, the file is no class list, or the split names an unknown class.
    """
    folder = folder or class_lists()
    list_name, split_name = name.rsplit("/", 1) if "/" in name else (name, "")
    path = folder / f"{list_name}.yaml"
    own = find_file(f"{list_name}.yaml")
    if not path.is_file() and own.is_file():
        path = own
    if not path.is_file():
        known = ", ".join(sorted(p.stem for p in folder.glob("*.yaml")))
        raise UserError(f"benchmark '{name}': no class list {path}; known lists: {known}")
    content, _ = parse_yaml(read_text(path), str(path))
    try:
        return _from_content(content, split_name, path)
    except (KeyError, TypeError, AttributeError, ValueError) as error:
        raise UserError(
            f"{path}: not a class list ({type(error).__name__}: {error}); it needs classes (name, label_3d, "
            "label_2d) and splits (novel)"
        ) from error


def _from_content(content: Any, split_name: str, path: Path) -> Benchmark:
    names = [entry["name"] for entry in content["classes"]]
    if not names or not all(isinstance(name, str) and name.strip() and name.isprintable() for name in names):
        raise ValueError("names must be words; YAML takes no, on and 5 for others: put them in quotes")
    splits = content["splits"]
    if split_name not in splits:
        raise UserError(
            f"benchmark '{path.stem}/{split_name}': no such split in {path}; known splits: {', '.join(splits)}"
        )
    ids_3d, ids_2d = ([entry[kind] for entry in content["classes"]] for kind in ("label_3d", "label_2d"))
    if len(set(names)) < len(names) or not all(type(i) is int and 0 <= i <= MAX_ID for i in (*ids_3d, *ids_2d)):
        raise ValueError(f"names must differ, and label ids be whole numbers from 0 to {MAX_ID}")
    if len(set(ids_3d)) < len(names) or len(set(ids_2d)) < len(names):
        raise ValueError("two classes have one label id, so that only one of them would ever be found")
    novel = _members(splits[split_name]["novel"], names, f"{path}: split {split_name}")
    base = tuple(i for i in range(len(names)) if i not in novel)
    groups = {group: _members(own, names, f"{path}: group {group}") for group, own in content.get("groups", {}).items()}
    if taken := groups.keys() & {"base", "novel"}:
        raise ValueError(f"a group is called {min(taken)}, as a part of the split is")
    prompts = content.get("prompts", {})
    if not all(isinstance(text, str) for texts in prompts.values() for text in texts.values()):
        raise ValueError("prompts are lists of a text by name")
    return Benchmark(
        name=f"{path.stem}/{split_name}",
        class_names=tuple(names),
        groups={"base": base, "novel": novel, **groups},
        file_ids_3d=tuple(ids_3d),
        file_ids_2d=tuple(ids_2d),
        prompts=prompts,
    )


def _ids_of(chosen: list[str], names: list[str], where: str) -> tuple[int, ...]:
    """Return the sorted ids of some names of a class list."""
    if not isinstance(chosen, list):
        raise UserError(f"{where}: expected a list of class names")
    for name in chosen:
        if name not in names:
            near = difflib.get_close_matches(name, names, 1)
            hint = f"; did you mean '{near[0]}'?" if near else ""
            raise UserError(f"{where} names '{name}', which is not in the class list{hint}")
    return tuple(sorted(names.index(name) for name in chosen))


def _members(group: list[str] | dict[str, list[str]], names: list[str], where: str) -> tuple[int, ...]:
    """Return the sorted ids of a class group, which is written as names or as {without: names}."""
    if isinstance(group, list):
        return _ids_of(group, names, where)
    if not isinstance(group, dict) or set(group) != {"without"}:
        raise UserError(f"{where}: expected a list of class names, or {{without: [names]}}")
    return tuple(sorted(set(range(len(names))) - set(_ids_of(group["without"], names, where))))
