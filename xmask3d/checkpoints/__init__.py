"""Checkpoint files: those of runs, published ones, conversion and export."""
