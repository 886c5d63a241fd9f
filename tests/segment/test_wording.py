"""Words as typed."""

from pathlib import Path

import pytest

from xmask3d.errors import UserError
from xmask3d.models.tokenizer import save_words
from xmask3d.segment.wording import is_learned, understand


@pytest.fixture
def clip(tmp_path: Path) -> Path:
    save_words(tmp_path, ["a red sofa", "shelf", "bookshelf to sit on", "bench", "chairs", "baby bed"])
    return tmp_path


def test_lists_in_one_query_are_several(clip: Path) -> None:
    found = understand(["sofa, red bench", "shelf|bookshelf"], clip)
    assert found.queries == ["sofa", "red bench", "shelf|bookshelf"]
    assert found.notes == ["'sofa, red bench' is taken as 2 queries: sofa, red bench"]
    alone = understand(["sofa,", "bench"], clip)  # as a shell parts: sofa, bench
    assert alone.queries == ["sofa", "bench"] and not alone.notes
    assert understand([","], clip).queries == [""]  # which is refused as empty


def test_plurals_are_read_as_the_words_that_were_learned(clip: Path) -> None:
    found = understand(["Sofas", "shelves|bookshelves", "benches", "babies bed", "chairs"], clip)
    assert found.queries == ["sofa", "shelf|bookshelf", "bench", "baby bed", "chairs"]
    assert found.notes[0] == "'sofas' is taken as sofa" and len(found.notes) == 5
    assert found.unlearned == []


@pytest.mark.parametrize(
    "query", ["qwertz", "something", "🙂", "Stuhl", "椅子", "12345", "to", "the of", "something to"]
)
def test_what_was_never_learned_is_named(clip: Path, query: str) -> None:
    found = understand([query, "sofa"], clip)
    assert found.unlearned == [query] and not is_learned(query, clip)
    assert found.notes == [f"'{query}': this model never learned such words, and finds nothing for them"]


def test_words_beside_learned_ones_are_named(clip: Path) -> None:
    found = understand(["red elephant"], clip)
    assert found.unlearned == []
    assert found.notes == ["'red elephant': this model never learned elephant, and goes by the rest"]
    assert is_learned("red elephant", clip) and not is_learned("red elephant", clip, every=True)
    assert is_learned("a red sofa to sit on", clip, every=True)


def test_a_clip_of_the_web_knows_every_word(tmp_path: Path) -> None:
    for clip in (tmp_path, None):
        found = understand(["qwertz", "sofas"], clip)
        assert found.queries == ["qwertz", "sofas"] and found.notes == found.unlearned == []
        assert is_learned("qwertz", clip, every=True)


def test_bytes_of_another_encoding_are_refused(clip: Path) -> None:
    with pytest.raises(UserError, match=r"query 'b\\udce9d': not UTF-8; is that the encoding of this terminal\?"):
        understand(["sofa", b"b\xe9d".decode(errors="surrogateescape")], clip)
