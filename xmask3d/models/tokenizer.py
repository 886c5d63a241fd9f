"""Tokenizer for small text encoders: the CLIP vocabulary, reduced to the tokens in use."""

import json
import re
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from xmask3d.errors import UserError
from xmask3d.files import atomic_write
from xmask3d.guarded import read_json, read_text
from xmask3d.models.byte_pairs import START, shared_pairs

if TYPE_CHECKING:
    from torch import Tensor

VOCABULARY_FILE = "tokenizer_vocabulary.json"
WORDS_FILE = "trained_words.txt"
"""File beside the weights with the words that a small text encoder was trained on, sorted, one per line."""


class CompactTokenizer:
    """Byte-pair tokenizer of CLIP with a small table instead of 49408 rows.

    The file `tokenizer_vocabulary.json` beside a model is a JSON list of the ids of open_clip's `SimpleTokenizer` that
    the model keeps. The rows of a token embedding with `vocab_size` rows (open_clip_config.json, `text_cfg`) are:

    - row i, for i < len(list): the byte-pair token whose id is list[i]. list[0] must be 0: row 0 also pads.
    - rows len(list) ... vocab_size - 3, at least one: shared by all other tokens; id t goes to
      row len(list) + t mod (number of these rows).
    - row vocab_size - 2: start of text; row vocab_size - 1: end of text. The end has the highest id, so that
      open_clip's default pooling (at the arg max of the ids) finds it.

    A call returns the same as open_clip's tokenizers: start, tokens, end, padded with zeros to the context length.
    """

    def __init__(self, kept: Sequence[int], *, vocabulary_size: int, context_length: int = 77) -> None:
        """Build the table.

        Args:
            kept: ids of `SimpleTokenizer`, each once, 0 first; row i of the table stands for kept[i].
            vocabulary_size: rows of the token embedding, at least len(kept) + 3.
            context_length: length of every token sequence; longer texts are truncated, but keep the end token.

        Raises:
            UserError: the list or the sizes violate the rules above.
        """
        largest = START - 1
        if not kept or kept[0] != 0 or len(set(kept)) != len(kept) or not all(0 <= k <= largest for k in kept):
            raise UserError(f"{VOCABULARY_FILE}: expected a list of distinct ids 0 ... {largest} that starts with 0")
        if vocabulary_size < len(kept) + 3:
            raise UserError(
                f"{VOCABULARY_FILE}: {len(kept)} ids need vocab_size >= {len(kept) + 3}, not {vocabulary_size}"
            )
        self.kept = list(kept)
        self.vocab_size = vocabulary_size
        self.context_length = context_length
        self.sot_token_id = vocabulary_size - 2
        self.eot_token_id = vocabulary_size - 1
        self._row = {token: row for row, token in enumerate(kept)}
        self._shared = vocabulary_size - 2 - len(kept)

    @classmethod
    def from_texts(
        cls, texts: Iterable[str], *, shared_rows: int = 256, context_length: int = 77
    ) -> "CompactTokenizer":
        """Make a tokenizer with the tokens in `texts`, sorted by id, and `shared_rows` rows for all others."""
        used = {token for text in texts for token in shared_pairs().encode(text)}
        kept = [0, *sorted(used - {0})]
        return cls(kept, vocabulary_size=len(kept) + shared_rows + 2, context_length=context_length)

    @classmethod
    def load(cls, path: Path, *, vocabulary_size: int, context_length: int = 77) -> "CompactTokenizer":
        """Read the JSON list at `path`, with sizes as in the model's configuration. UserError if it is no such list."""
        kept = read_json(Path(path), "a list of token ids")
        if not isinstance(kept, list) or not all(isinstance(token, int) for token in kept):
            raise UserError(f"{path}: expected a JSON list of token ids")
        return cls(kept, vocabulary_size=vocabulary_size, context_length=context_length)

    def save(self, folder: Path) -> None:
        """Write `tokenizer_vocabulary.json` into `folder`."""
        atomic_write(Path(folder) / VOCABULARY_FILE, json.dumps(self.kept) + "\n")

    def encode(self, text: str) -> list[int]:
        """Return rows of the tokens of `text`, without start and end."""
        return [self._row_of(token) for token in shared_pairs().encode(text)]

    def rows(self, texts: Sequence[str], context_length: int | None = None) -> list[list[int]]:
        """Return rows of N texts with start and end, each padded with zeros to `context_length`."""
        length = context_length or self.context_length
        whole = [[self.sot_token_id, *self.encode(text)[: length - 2], self.eot_token_id] for text in texts]
        return [tokens + [0] * (length - len(tokens)) for tokens in whole]

    def __call__(self, texts: str | Sequence[str], context_length: int | None = None) -> "Tensor":
        """Return tokens of N texts: int64, N x context_length."""
        import torch  # queries on saved features do not need torch

        rows = self.rows([texts] if isinstance(texts, str) else texts, context_length)
        return torch.tensor(rows, dtype=torch.long).reshape(len(rows), context_length or self.context_length)

    def _row_of(self, token: int) -> int:
        return self._row.get(token, len(self.kept) + token % self._shared)


def words_of(text: str) -> list[str]:
    """Return the words of a text in order and in lower case, without digits and punctuation."""
    return re.findall(r"[^\W\d_]+", text.lower())


def save_words(folder: Path, texts: Iterable[str]) -> None:
    """Write the words of `texts` to `trained_words.txt` in `folder`."""
    words = sorted({word for text in texts for word in words_of(text)})
    atomic_write(folder / WORDS_FILE, "".join(f"{word}\n" for word in words))


def learned_words(folder: Path) -> set[str] | None:
    """Return the words that a folder's CLIP was trained on; None, which means all, without `trained_words.txt`."""
    path = folder / WORDS_FILE
    return set(read_text(path, "a list of words").split()) if path.is_file() else None


def unknown_words(text: str, folder: Path) -> list[str]:
    """Return the words of `text` that a text encoder was never trained on, in order, without repetitions.

    Args:
        text: a query, a class name or a phrase.
        folder: folder of the CLIP model. Without `trained_words.txt`, as for models trained on the web, every word
            counts as known.
    """
    known = learned_words(folder)
    return [] if known is None else [word for word in dict.fromkeys(words_of(text)) if word not in known]
