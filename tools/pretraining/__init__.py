"""Pre-training of the small stand-ins for CLIP and Stable Diffusion that come with the package."""
