"""Pre-training of the small stand-in foundation models."""
