"""Geometry of scenes: cameras, voxels, changes at random, neighbours and regions of points, files of points."""
