"""C++ loops compiled on the user's machine, where it has a compiler; every use has a way in plain torch beside it."""
