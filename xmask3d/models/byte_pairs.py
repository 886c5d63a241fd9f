"""CLIP's byte-pair encoding without torch: maps a text to ids of the vocabulary that all CLIP models share.

The ids equal those of open_clip's `SimpleTokenizer` (tested), which takes seconds to import. The merges are read from
open_clip's file, which is found without importing the package.
"""

import gzip
import html
from functools import lru_cache
from importlib.util import find_spec
from itertools import pairwise
from pathlib import Path

from xmask3d.errors import UserError

MERGES_FILE = "bpe_simple_vocab_16e6.txt.gz"
START = 49406
"""Id of the start of a text. The next id is the end of a text, and all lower ids are byte pairs."""


class BytePairs:
    """Encoder of texts; `shared_pairs` returns one that all share."""

    def __init__(self, merges: list[tuple[str, str]]) -> None:
        """Keep the merges: pairs in the order in which they are joined."""
        import regex

        self.merges = merges
        self._byte_symbol = _byte_symbols()
        symbols = list(self._byte_symbol.values())
        vocabulary = symbols + [symbol + "</w>" for symbol in symbols] + ["".join(pair) for pair in merges]
        self._id = {token: number for number, token in enumerate(vocabulary)}
        self._rank = {pair: rank for rank, pair in enumerate(merges)}
        self._pieces = regex.compile(
            r"<start_of_text>|<end_of_text>|'s|'t|'re|'ve|'m|'ll|'d|[\p{L}]+|[\p{N}]|[^\s\p{L}\p{N}]+", regex.IGNORECASE
        )
        self._id |= {"<start_of_text>": START, "<end_of_text>": START + 1}

    def encode(self, text: str) -> list[int]:
        """Return the ids of a text, without start and end."""
        ids = []
        for piece in self._pieces.findall(_clean(text)):
            ids += [self._id[token] for token in self._join(piece)]
        return ids

    def _join(self, piece: str) -> list[str]:
        """Join neighbouring symbols of a piece repeatedly, in the order of the merges."""
        if piece in ("<start_of_text>", "<end_of_text>"):
            return [piece]
        word = [self._byte_symbol[byte] for byte in piece.encode("utf-8")]
        word[-1] += "</w>"
        while len(word) > 1:
            first, second = min(pairwise(word), key=lambda pair: self._rank.get(pair, len(self._rank)))
            if (first, second) not in self._rank:
                break
            joined, place = [], 0
            while place < len(word):
                if word[place : place + 2] == [first, second]:
                    joined.append(first + second)
                    place += 2
                else:
                    joined.append(word[place])
                    place += 1
            word = joined
        return word


@lru_cache(maxsize=1)
def shared_pairs() -> BytePairs:
    """Return the encoder with CLIP's merges."""
    package = find_spec("open_clip")
    path = Path(package.origin).parent / MERGES_FILE if package and package.origin else Path(MERGES_FILE)
    try:
        lines = gzip.decompress(path.read_bytes()).decode("utf-8").split("\n")
    except (OSError, EOFError) as error:
        raise UserError(f"{path}: CLIP's vocabulary cannot be read; install open_clip_torch again ({error})") from error
    merges = [tuple(line.split()) for line in lines[1 : START - 512 + 1]]
    return BytePairs([(pair[0], pair[1]) for pair in merges])


def _clean(text: str) -> str:
    import ftfy

    return " ".join(html.unescape(html.unescape(ftfy.fix_text(text))).split()).lower()


def _byte_symbols() -> dict[int, str]:
    """Return a visible character for each byte in CLIP's order: its own if visible, otherwise one from 256 on."""
    visible = [*range(ord("!"), ord("~") + 1), *range(ord("¡"), ord("¬") + 1), *range(ord("®"), ord("ÿ") + 1)]
    symbols = {byte: chr(byte) for byte in visible}
    for byte in range(256):
        if byte not in symbols:
            symbols[byte] = chr(256 + len(symbols) - len(visible))
    return symbols
