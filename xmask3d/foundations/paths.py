"""Where the shipped foundation models are."""

from pathlib import Path

WEIGHTS = Path(__file__).parent / "weights"


def clip_folder() -> Path:
    """Folder of the small CLIP: open_clip configuration, weights, tokenizer vocabulary."""
    return WEIGHTS / "clip"


def diffusion_folder() -> Path:
    """Folder of the small Stable Diffusion, in diffusers' layout, with the embedding of the empty prompt."""
    return WEIGHTS / "diffusion"
