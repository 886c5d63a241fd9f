"""Report on a GPU, `xmask3d doctor --gpu`: correctness, speed and memory of everything that a GPU changes.

Each section of `tools.gpu.sections` runs in a process of its own, so that one that fails, takes too long or runs out of
memory becomes a row of the table, and the rest is measured all the same.
"""
