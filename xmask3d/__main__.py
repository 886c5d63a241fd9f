"""The `xmask3d` command by `python -m xmask3d`, which torchrun starts too."""

from xmask3d.cli.main import main

if __name__ == "__main__":
    main()
