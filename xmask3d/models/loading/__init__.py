"""Readers of weight files: CLIP, Stable Diffusion, safetensors and PyTorch containers."""
