"""Data sets: readers, samples, downloads."""
