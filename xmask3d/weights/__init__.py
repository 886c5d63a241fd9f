"""Trained models that come with the package, each a folder of `tools/export_model.py`."""

from pathlib import Path

SHIPPED = Path(__file__).parent / "rooms-B15N4"
"""The model that is used where nothing else is trained or named."""
