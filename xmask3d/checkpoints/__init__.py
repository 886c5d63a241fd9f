"""Checkpoint files: a run's own, the published container, conversion, export."""
