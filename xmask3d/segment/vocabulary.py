"""Vocabulary of a query: classes with synonyms, background words, and the base classes of the checkpoint."""

from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np

from xmask3d.errors import UserError
from xmask3d.resources import class_lists
from xmask3d.splits import Benchmark, load_benchmark

BACKGROUND = "background"


@dataclass(frozen=True)
class Vocabulary:
    """Classes for points, K in all, each with one or more texts.

    Attributes:
        names: K class names; the last is "background" if there are background words.
        texts: T texts to encode, all synonyms of all classes.
        class_of_text: T class ids.
        is_base: T bool, true for texts that are base classes of the checkpoint.
        has_background: true if the last class collects background words.
    """

    names: tuple[str, ...]
    texts: tuple[str, ...]
    class_of_text: tuple[int, ...]
    is_base: tuple[bool, ...]
    has_background: bool = False

    @property
    def novel(self) -> np.ndarray:
        """Texts that the checkpoint was not trained on, T bool."""
        return ~np.array(self.is_base, bool)

    @property
    def groups(self) -> np.ndarray:
        """Class of each text, T int64."""
        return np.array(self.class_of_text, np.int64)

    def texts_of_classes(self) -> list[list[tuple[str, bool]]]:
        """Return the texts of each class, each with True if it is a base class of the checkpoint."""
        found: list[list[tuple[str, bool]]] = [[] for _ in self.names]
        for text, group, is_base in zip(self.texts, self.class_of_text, self.is_base, strict=True):
            found[group].append((text, is_base))
        return found

    def merge(self, text_scores: np.ndarray) -> np.ndarray:
        """Return the largest score among the texts of each class: ... x T to ... x K."""
        merged = np.full((*text_scores.shape[:-1], len(self.names)), -np.inf, text_scores.dtype)
        for text, group in enumerate(self.class_of_text):
            np.maximum(merged[..., group], text_scores[..., text], out=merged[..., group])
        return merged


@dataclass
class Reference:
    """Classes of the checkpoint's benchmark; they decide which words are base, and compete with other words."""

    names: list[str]
    base_names: list[str]
    _base: set[str] = field(init=False)

    def __post_init__(self) -> None:
        self._base = {_plain(name) for name in self.base_names}

    def knows(self, word: str) -> bool:
        """Return True if a word is one of the base classes, in singular or plural."""
        plain = _plain(word)
        return plain in self._base or (plain.endswith("s") and plain[:-1] in self._base)

    @classmethod
    def of(cls, benchmark: Benchmark) -> "Reference":
        """Return the reference of a benchmark."""
        return cls(list(benchmark.class_names), benchmark.base_names)


def parse_queries(queries: Sequence[str], reference: Reference, background: Sequence[str] = ()) -> Vocabulary:
    """Make a vocabulary of words as typed.

    Args:
        queries: one per class; "a|b|c" is one class, named a, with three synonyms.
        reference: benchmark classes that decide which texts are base.
        background: words whose points count as unlabelled, possibly with synonyms.

    Raises:
        UserError: there is no query, a query is empty, or two classes share a word.
    """
    groups = [_synonyms(query) for query in queries]
    if not groups:
        raise UserError("no words to look for; give some with --query")
    names = [group[0] for group in groups]
    outside = [text for word in background for text in _synonyms(word)]
    if outside:
        names.append(BACKGROUND)
        groups.append(outside)
    owner: dict[str, int] = {}
    for number, group in enumerate(groups):
        for text in group:
            first = owner.setdefault(_plain(text), number)
            if first != number or group.count(text) > 1:
                both = f"{names[first]}, {names[number]}"
                raise UserError(f"query '{text}' is given twice ({both}); give every word once")
    texts = [text for group in groups for text in group]
    class_of_text = [i for i, group in enumerate(groups) for _ in group]
    is_base = [reference.knows(text) for text in texts]
    return Vocabulary(tuple(names), tuple(texts), tuple(class_of_text), tuple(is_base), bool(outside))


def benchmark_vocabulary(benchmark: Benchmark, prompt_list: str | None = None) -> Vocabulary:
    """Return all classes of the checkpoint's own benchmark, as evaluation names them."""
    count = benchmark.num_classes
    return Vocabulary(
        benchmark.class_names,
        tuple(benchmark.test_prompts(prompt_list)),
        tuple(range(count)),
        tuple(i in benchmark.base for i in range(count)),
    )


def class_list(name: str) -> list[str]:
    """Return the names of a shipped class list, such as "scannet20"; a split after a slash is ignored.

    Raises:
        UserError: the list is unknown; the message names the known ones.
    """
    list_name = name.partition("/")[0]
    path = class_lists() / f"{list_name}.yaml"
    if not path.is_file():
        known = ", ".join(sorted(p.stem for p in class_lists().glob("*.yaml")))
        raise UserError(f"--classes {name}: no such class list; known: {known}")
    import yaml

    splits = yaml.safe_load(path.read_text(encoding="utf-8"))["splits"]
    return list(load_benchmark(f"{list_name}/{next(iter(splits))}").class_names)


def _synonyms(query: str) -> list[str]:
    words = [word.strip() for word in query.split("|")]
    if not all(words):
        raise UserError(f"query '{query}': empty; write a word, a phrase, or synonyms as sofa|couch")
    return words


def _plain(word: str) -> str:
    return " ".join(word.lower().replace("_", " ").replace("-", " ").split())
