"""Text tower of CLIP in plain NumPy, which answers a query on saved features before torch could be imported."""

from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
from safetensors import SafetensorError, safe_open

from xmask3d.errors import UserError
from xmask3d.guarded import read_json
from xmask3d.models.tokenizer import VOCABULARY_FILE, CompactTokenizer

KNOWN = {"context_length", "width", "heads", "layers", "vocab_size"}
"""Supported keys of `text_cfg`; a tower with other keys is left to open_clip."""


class TextTower:
    """Transformer over tokens, with a causal mask; the output of the last token is the text's embedding.

    Args:
        tensors: float32 arrays by open_clip's names.
        heads: attention heads.
        tokenizer: tokenizer that gives rows of the token embedding.
    """

    def __init__(self, tensors: dict[str, np.ndarray], heads: int, tokenizer: CompactTokenizer) -> None:
        self.tensors, self.heads, self.tokenizer = tensors, heads, tokenizer
        self._layers = sum(name.endswith("ln_1.weight") for name in tensors)

    def __call__(self, texts: Sequence[str]) -> np.ndarray:
        """Embed N texts, one or more: N x D float32, not normalised."""
        t = self.tensors
        tokens = np.array(self.tokenizer.rows(texts))
        x = t["token_embedding.weight"][tokens] + t["positional_embedding"][: tokens.shape[1]]
        for layer in range(self._layers):
            x = self._block(x, f"transformer.resblocks.{layer}.")
        x = self._norm(x, "ln_final")
        # The end token has the highest id.
        return x[np.arange(len(texts)), tokens.argmax(1)] @ t["text_projection"]

    def _block(self, x: np.ndarray, name: str) -> np.ndarray:
        from scipy.special import erf

        count, length, width = x.shape
        projected = self._linear(self._norm(x, name + "ln_1"), name + "attn.in_proj_")
        query, key, value = projected.reshape(count, length, 3, self.heads, -1).transpose(2, 0, 3, 1, 4)
        scores = query @ key.transpose(0, 1, 3, 2) / np.sqrt(query.shape[-1], dtype=np.float32)
        scores = np.where(np.tri(length, dtype=bool), scores, -np.inf)
        weights = np.exp(scores - scores.max(-1, keepdims=True))
        mixed = (weights / weights.sum(-1, keepdims=True)) @ value
        x = x + self._linear(mixed.transpose(0, 2, 1, 3).reshape(count, length, width), name + "attn.out_proj.")
        hidden = self._linear(self._norm(x, name + "ln_2"), name + "mlp.c_fc.")
        hidden = 0.5 * hidden * (1 + erf(hidden / np.sqrt(2, dtype=np.float32)))
        return x + self._linear(hidden.astype(np.float32), name + "mlp.c_proj.")

    def _linear(self, x: np.ndarray, name: str) -> np.ndarray:
        return x @ self.tensors[f"{name}weight"].T + self.tensors[f"{name}bias"]

    def _norm(self, x: np.ndarray, name: str) -> np.ndarray:
        centred = x - x.mean(-1, keepdims=True)
        scaled = centred / np.sqrt((centred**2).mean(-1, keepdims=True) + 1e-5)
        return scaled * self.tensors[f"{name}.weight"] + self.tensors[f"{name}.bias"]


def load_text_tower(folder: Path) -> Callable[[Sequence[str]], np.ndarray] | None:
    """Load the text tower of a folder for `load_clip`, or None for a kind that only open_clip supports."""
    paths = folder / "open_clip_config.json", folder / "model.safetensors", folder / VOCABULARY_FILE
    if not all(path.is_file() for path in paths):
        return None
    try:
        model = read_json(paths[0])["model_cfg"]
        text = model["text_cfg"]
        if set(text) - KNOWN or model.get("quick_gelu") or model.get("custom_text"):
            return None
        vocabulary_size, heads = text["vocab_size"], text["heads"]
        with safe_open(str(paths[1]), "numpy") as file:
            wanted = [name for name in file.keys() if not name.startswith(("visual.", "logit_"))]  # noqa: SIM118
            tensors = {name: file.get_tensor(name).astype(np.float32) for name in wanted}
    except (UserError, OSError, ValueError, KeyError, TypeError, SafetensorError):
        return None  # open_clip will report what is wrong
    tokenizer = CompactTokenizer.load(
        paths[2], vocabulary_size=vocabulary_size, context_length=text.get("context_length", 77)
    )
    return TextTower(tensors, heads, tokenizer)
