"""Weights that come with the package: a trained model, and stand-ins for CLIP and Stable Diffusion."""

from pathlib import Path

SHIPPED = Path(__file__).parent / "rooms-B15N4"
"""The model that is used where nothing else is trained or named; a folder of `xmask3d export`."""

TRAINING = "3750 training steps on 500 clean rooms, then 974 on rooms that look like scans"
"""All of that model's training; its file records the last part of it. `README.md` beside it has the details."""

STAND_INS = Path(__file__).parent / "stand-ins"
"""The small CLIP and Stable Diffusion that are pre-trained by `python -m tools.pretraining`."""


def clip_folder() -> Path:
    """Return the folder of the small CLIP: open_clip configuration, weights, tokenizer vocabulary."""
    return STAND_INS / "clip"


def diffusion_folder() -> Path:
    """Return the folder of the small Stable Diffusion, in diffusers' layout, with the embedding of the empty prompt."""
    return STAND_INS / "diffusion"
