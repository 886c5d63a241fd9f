"""Sparse convolution compiled on the user's machine, where it has a C++ compiler; see `build` and `kernels`."""
