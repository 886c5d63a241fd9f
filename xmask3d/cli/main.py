"""Entry point of the `xmask3d` program: finds the requested command, parses its options and runs it."""

import os
import sys
from collections.abc import Sequence

from xmask3d import __version__
from xmask3d.cli.registry import load_command, make_parser, overview
from xmask3d.errors import UserError, run_tool


def main(arguments: Sequence[str] | None = None) -> None:
    """Run a command line, by default this process's, and exit with its code; a mistake becomes one line on stderr."""
    try:
        run_tool(lambda: run(sys.argv[1:] if arguments is None else arguments))
    except BrokenPipeError:  # the reader of the output, such as `head`, has closed it
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        sys.exit(1)


def run(arguments: Sequence[str]) -> int:
    """Run a command line (without the program's name) and return the exit code.

    Raises:
        UserError: the request has a mistake.
    """
    name, *rest = arguments or ["--help"]
    if name in ("--help", "-h", "help"):
        print(make_parser(rest[0]).format_help() if rest else overview())
        return 0
    if name == "--version":
        print(f"xmask3d {__version__}")
        return 0
    if name.startswith("-"):
        raise UserError(f"unknown option {name}; a command comes first, see xmask3d --help")
    options = make_parser(name).parse(rest)
    code = load_command(name).run(options)
    sys.stdout.flush()
    return code


if __name__ == "__main__":
    main()
