"""Geometry of scenes: cameras, voxels, augmentation, neighbours and regions of points, and PLY files."""
