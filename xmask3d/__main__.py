"""The `xmask3d` program as `python -m xmask3d`, which torchrun can start too."""

from xmask3d.cli.main import main

if __name__ == "__main__":
    main()
