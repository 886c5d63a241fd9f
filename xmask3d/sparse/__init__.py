"""Sparse tensors and convolutions."""
