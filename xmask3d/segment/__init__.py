"""Segmentation of a user's own scans by any vocabulary: segmenter, saved features, queries, results, viewer."""
