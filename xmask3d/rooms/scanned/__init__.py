"""Rooms that look like scans (version v1): noisy frames of a hand-held depth camera, fused as a user's recording is."""
