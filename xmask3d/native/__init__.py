"""C++ loops compiled on the user's machine, if it has a compiler; plain torch can replace each of them."""
