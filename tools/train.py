"""Train, or resume, the run of a configuration; the same as `xmask3d train`."""

import sys

from xmask3d.cli.main import main

if __name__ == "__main__":
    main(["train", *sys.argv[1:]])
