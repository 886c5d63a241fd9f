from pathlib import Path

import open_clip
import pytest
import torch

from xmask3d.errors import UserError
from xmask3d.models.tokenizer import CompactTokenizer, save_words, unknown_words
from xmask3d.weights import clip_folder


def test_kept_tokens_map_back_to_clips_own() -> None:
    texts = ["a chair", "shower curtain", "a wooden desk!"]
    tokenizer = CompactTokenizer.from_texts(texts, shared_rows=5, context_length=9)
    tokens = tokenizer(texts)
    original = open_clip.SimpleTokenizer(context_length=9)(texts)
    assert tokens.shape == (3, 9) and tokens.dtype == torch.long
    assert torch.equal(tokens == 0, original == 0)
    back = torch.tensor([*tokenizer.kept, *[-1] * 5, 49406, 49407])
    assert torch.equal(back[tokens], original)
    assert torch.equal(tokens.argmax(1), original.argmax(1))


def test_unknown_tokens_share_the_spare_rows() -> None:
    tokenizer = CompactTokenizer.from_texts(["a chair"], shared_rows=3, context_length=20)
    rows = tokenizer.encode("zebra crossing in a snow storm")
    known = tokenizer.encode("a")[0]
    first_spare = len(tokenizer.kept)
    assert known < first_spare and known in rows
    assert all(first_spare <= row < tokenizer.sot_token_id for row in rows if row != known)
    assert tokenizer.encode("zebra crossing in a snow storm") == rows


def test_long_text_keeps_its_end() -> None:
    tokens = CompactTokenizer.from_texts(["chair"], context_length=5)("chair " * 20)
    assert tokens.shape == (1, 5)
    assert tokens[0, -1] == tokens.max()


def test_round_trip_through_the_file(tmp_path: Path) -> None:
    tokenizer = CompactTokenizer.from_texts(["a chair", "a sofa"], shared_rows=4, context_length=12)
    tokenizer.save(tmp_path)
    path = tmp_path / "tokenizer_vocabulary.json"
    again = CompactTokenizer.load(path, vocabulary_size=tokenizer.vocab_size, context_length=12)
    assert torch.equal(again(["a sofa", "lamp"]), tokenizer(["a sofa", "lamp"]))


@pytest.mark.parametrize("content", ["{}", "[1, 2]", "[0, 7, 7]", "[0, 60000]", "[0, 'x']", "[]"])
def test_bad_lists_are_refused(tmp_path: Path, content: str) -> None:
    path = tmp_path / "tokenizer_vocabulary.json"
    path.write_text(content)
    with pytest.raises(UserError, match="tokenizer_vocabulary"):
        CompactTokenizer.load(path, vocabulary_size=100)


def test_too_small_a_table_is_refused() -> None:
    with pytest.raises(UserError, match="vocab_size >= 5"):
        CompactTokenizer([0, 5], vocabulary_size=4)


def test_words_that_were_never_trained_are_told(tmp_path: Path) -> None:
    assert unknown_words("a purple zebra", tmp_path) == []  # no list: a CLIP trained on the web
    save_words(tmp_path, ["a red sofa", "a sofa-bed, 2 m"])
    assert (tmp_path / "trained_words.txt").read_text() == "a\nbed\nm\nred\nsofa\n"
    assert unknown_words("A red SOFA; bed 7!", tmp_path) == []
    assert unknown_words("Küche: a zebra, a Zebra and the sofa", tmp_path) == ["küche", "zebra", "and", "the"]
    assert unknown_words("", tmp_path) == []


def test_shipped_list_holds_the_words_of_furniture() -> None:
    assert unknown_words("the shower curtain next to a fridge", clip_folder()) == []
    assert unknown_words("a quark on the sofa", clip_folder()) == ["quark"]
