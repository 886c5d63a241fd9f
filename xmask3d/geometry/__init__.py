"""Camera projection and voxels."""
