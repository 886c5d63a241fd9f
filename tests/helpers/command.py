"""The `xmask3d` command run in this process, which saves the time of its imports."""

import pytest

from xmask3d.cli.main import main


def run_command(*arguments: object) -> int | str | None:
    """Run `xmask3d` with these arguments; returns its exit code."""
    with pytest.raises(SystemExit) as ended:
        main([str(argument) for argument in arguments])
    return ended.value.code
