"""Errors that a user can mend."""

import sys
from collections.abc import Callable


class UserError(Exception):
    """A mistake in input, data or setup: one line that says what, where and what to do. Tools print it, exit code 1."""


def run_tool(main: Callable[[], int | None]) -> None:
    """Run a command's `main` and exit with its code; a `UserError` becomes one line on stderr, not a traceback."""
    try:
        code = main()
    except UserError as error:
        print(f"error: {error}", file=sys.stderr)
        sys.exit(1)
    except KeyboardInterrupt:
        print("stopped by the user", file=sys.stderr)
        sys.exit(130)
    sys.exit(code or 0)
