"""Errors that a user can mend."""

import os
import sys
import time
from collections.abc import Callable

PATIENCE = 5.0
"""Seconds that a process other than the first lets pass before it reports: mostly the first has the same to say, and
all are ended once it has."""


class UserError(Exception):
    """A mistake in input, data or setup: one line that says what, where and what to do. Tools print it, exit code 1."""


def run_tool(main: Callable[[], int | None]) -> None:
    """Run a command's `main` and exit with its code; a `UserError` becomes one line on stderr, not a traceback."""
    try:
        code = main()
    except UserError as error:
        if os.environ.get("LOCAL_RANK", "0") != "0":
            time.sleep(PATIENCE)
        print(f"error: {error}", file=sys.stderr)
        sys.exit(1)
    except KeyboardInterrupt:
        print("stopped by the user", file=sys.stderr)
        sys.exit(130)
    sys.exit(code or 0)
