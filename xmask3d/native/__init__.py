"""C++ loops compiled on the user's machine, where it has a compiler; plain torch can replace each of them."""
