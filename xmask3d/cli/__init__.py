"""The `xmask3d` command."""
