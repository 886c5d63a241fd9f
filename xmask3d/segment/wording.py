"""Interpretation of queries as typed: lists in one query, plurals, and words that the text encoder never learned."""

import re
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

from xmask3d.errors import UserError
from xmask3d.guarded import is_text
from xmask3d.models.tokenizer import WORDS_FILE, unknown_words, words_of
from xmask3d.weights import clip_folder

NONSENSE = ("zxcv", "flurb", "wug", "mnbv", "plugh", "foo bar", "vqxk", "lorem ipsum", "blicket", "dax", "uvw rst",
            "and so on", "nothing", "anything", "of", "kjhg poiu", "tove", "mome raths", "snark", "hjkl")  # fmt: skip
"""Texts that fit places only by chance."""

SMALL = frozenset(("a", "above", "an", "and", "are", "at", "back", "behind", "beside", "by", "end", "for", "four",
                   "from", "front", "in", "is", "it", "left", "looking", "many", "middle", "near", "next", "object",
                   "of", "off", "on", "one", "or", "out", "over", "range", "rendering", "right", "scale", "scene",
                   "seen", "several", "side", "small", "some", "that", "the", "there", "thing", "three", "through",
                   "to", "top", "tops", "two", "under", "up", "upper", "view", "views", "with"))  # fmt: skip
"""Words that do not name anything by themselves."""


@dataclass
class Wording:
    """Queries as understood.

    Attributes:
        queries: classes or a phrase, with synonyms separated by "|".
        notes: sentences about queries that were changed, and about words that were never learned.
        unlearned: queries without a single learned word that names something.
    """

    queries: list[str]
    notes: list[str] = field(default_factory=list)
    unlearned: list[str] = field(default_factory=list)


def understand(queries: Sequence[str], clip: Path | None) -> Wording:
    """Interpret queries as typed.

    Args:
        queries: queries as typed.
        clip: folder of the CLIP model; None if it has learned every word.

    Raises:
        UserError: a query is not a text.
    """
    found = Wording([])
    for query in queries:
        if not is_text(query):
            raise UserError(f"query {query!a}: not UTF-8; is that the encoding of this terminal?")
        parts = [part.strip() for part in query.split(",") if part.strip()] or [""]
        if len(parts) > 1:
            found.notes.append(f"'{query}' is taken as {len(parts)} queries: {', '.join(parts)}")
        found.queries += [_singular_query(part, clip, found.notes) for part in parts]
    for query in found.queries if clip is not None else []:
        assert clip is not None
        unknown = list(dict.fromkeys(word for text in query.split("|") for word in unknown_words(text, clip)))
        if not is_learned(query, clip):
            found.unlearned.append(query)
            found.notes.append(f"'{query}': this model never learned such words, and finds nothing for them")
        elif unknown:
            found.notes.append(f"'{query}': this model never learned {', '.join(unknown)}, and goes by the rest")
    return found


def is_learned(query: str, clip: Path | None, *, every: bool = False) -> bool:
    """Return True if the text encoder learned a word of the query that names something; otherwise it answers noise.

    Args:
        query: a word, a phrase, or synonyms.
        clip: see `understand`.
        every: require every word that names something to be learned, and at least one such word.
    """
    if clip is None or not (clip / WORDS_FILE).is_file():
        return True
    unknown = set(unknown_words(query, clip))
    learned = [word not in unknown for word in words_of(query) if word not in SMALL]
    return bool(learned) and (all(learned) if every else any(learned))


def local_clip(source: str) -> Path | None:
    """Return the folder of the CLIP model that a configuration names; None if that is not a local folder."""
    folder = clip_folder() if source == "shipped" else Path(source)
    return folder if folder.is_dir() else None


def _singular_query(query: str, clip: Path | None, notes: list[str]) -> str:
    """Replace plurals that were never learned by learned singulars."""
    if clip is None:
        return query
    for word in unknown_words(query, clip):
        for singular in _singulars(word):
            if not unknown_words(singular, clip):
                notes.append(f"'{word}' is taken as {singular}")
                query = _replace(query, word, singular)
                break
    return query


def _singulars(word: str) -> list[str]:
    """Return the possible singulars of a word."""
    endings = (("ves", "f"), ("ies", "y"), ("es", ""), ("s", ""))
    return [word.removesuffix(end) + new for end, new in endings if word.endswith(end) and len(word) > len(end) + 2]


def _replace(query: str, word: str, other: str) -> str:
    """Replace a complete word, whatever its case."""
    return re.sub(rf"(?<![^\W\d_]){re.escape(word)}(?![^\W\d_])", other, query, flags=re.IGNORECASE)
