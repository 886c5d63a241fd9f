"""Scores: confusion matrices, means over groups of classes, comparison of runs."""
