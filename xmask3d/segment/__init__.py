"""Segmentation of a user's own scans by any words: segmenter, saved features, queries, results, viewer."""
