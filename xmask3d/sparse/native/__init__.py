"""Sparse convolution compiled on the user's machine, if that has a C++ compiler; see `build` and `kernels`."""
