"""Small stand-ins for CLIP and Stable Diffusion, shipped with the package, and their pre-training."""

from xmask3d.foundations.paths import clip_folder, diffusion_folder

__all__ = ["clip_folder", "diffusion_folder"]
