"""Segmentation of one's own scans by any words: segmenter, saved features, queries, results, viewer."""
