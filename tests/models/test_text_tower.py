"""The text tower in NumPy against open_clip's, and the byte pairs against its tokenizer."""

import json
import shutil
from pathlib import Path

import numpy as np
import open_clip

from xmask3d.models.byte_pairs import shared_pairs
from xmask3d.models.clip import ClipText
from xmask3d.models.loading.clip_weights import load_clip
from xmask3d.models.text_tower import load_text_tower
from xmask3d.weights import clip_folder

TEXTS = [
    "sofa", "a potted plant", "something to sit on", "", "Küche & Bad – 2 chairs!!", "<b>&amp;amp;</b> it's I'll 日本",
    "chair " * 60, "pneumonoultramicroscopicsilicovolcanoconiosis", "a\tb\n c", "ſofa ﬁle", "<end_of_text> x",
]  # fmt: skip


def test_byte_pairs_are_open_clips() -> None:
    tokenizer = open_clip.SimpleTokenizer()
    rng = np.random.default_rng(0)
    random = ["".join(map(chr, rng.integers(32, 0x2FF, 30))) for _ in range(50)]
    for text in TEXTS + random:
        assert shared_pairs().encode(text) == tokenizer.encode(text), text


def test_tower_gives_clips_embeddings() -> None:
    clip, tokenizer = load_clip(clip_folder())
    expected = ClipText(clip, tokenizer)(TEXTS).numpy()
    tower = load_text_tower(clip_folder())
    assert tower is not None
    np.testing.assert_allclose(tower(TEXTS), expected, atol=1e-4 * np.abs(expected).max())


def test_other_towers_are_left_to_open_clip(tmp_path: Path) -> None:
    assert load_text_tower(tmp_path) is None
    folder = shutil.copytree(clip_folder(), tmp_path / "clip")
    config = json.loads((folder / "open_clip_config.json").read_text())
    for change in ({"quick_gelu": True}, {"text_cfg": {**config["model_cfg"]["text_cfg"], "no_causal_mask": True}}):
        (folder / "open_clip_config.json").write_text(json.dumps({"model_cfg": {**config["model_cfg"], **change}}))
        assert load_text_tower(folder) is None
