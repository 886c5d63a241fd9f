"""Evaluate a checkpoint on complete scenes; the same as `xmask3d evaluate`."""

import sys

from xmask3d.cli.main import main

if __name__ == "__main__":
    main(["evaluate", *sys.argv[1:]])
