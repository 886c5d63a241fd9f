"""Parser of command lines that ignores nothing: an option given twice is either collected or refused."""

import argparse
import difflib
from collections.abc import Sequence
from typing import Any, NoReturn

from xmask3d.errors import UserError


class CommandParser(argparse.ArgumentParser):
    """Parser whose errors are one line, with arguments and options in any order."""

    def __init__(self, **keywords: Any) -> None:
        # Abbreviations would be a second spelling of an option, whose meaning changes with every new option.
        super().__init__(allow_abbrev=False, formatter_class=argparse.RawDescriptionHelpFormatter, **keywords)

    def error(self, message: str) -> NoReturn:
        """Raise `UserError` instead of printing the usage."""
        raise UserError(f"{' '.join(message.split())}; see {self.prog} --help")

    def parse(self, arguments: Sequence[str]) -> argparse.Namespace:
        """Parse a command line.

        Returns:
            The options, with the names of those on the command line as the set `given`.

        Raises:
            UserError: an option is unknown, or is given twice but keeps only one value, or there is another mistake.
        """
        for argument in arguments:
            if not argument or (argument.startswith("--") and argument.endswith("=")):
                self.error(f"{argument or 'an argument'} is empty, as a variable of the shell is that was not set")
        arguments = self._join_negative(arguments)
        given = self._given(arguments)
        for action in given:
            if given.count(action) > 1 and isinstance(action, argparse._StoreAction):
                self.error(f"{action.option_strings[0]}: given {given.count(action)} times; give it once")
        options = self.parse_intermixed_args(arguments)
        options.given = frozenset(action.dest for action in given)
        return options

    def _given(self, arguments: Sequence[str]) -> list[argparse.Action]:
        """Find the options of a command line in order, including repetitions."""
        known, given = self._option_string_actions, []
        for argument in arguments:
            if argument == "--":
                break
            name = argument.partition("=")[0]
            if name in known:
                given.append(known[name])
            elif name.startswith("--"):
                near = difflib.get_close_matches(name, known, 1)
                self.error(f"unknown option {name}" + (f"; did you mean {near[0]}?" if near else ""))
        return given

    def _join_negative(self, arguments: Sequence[str]) -> list[str]:
        """Join `--up -z` to `--up=-z` for options with such choices, since argparse takes -z for an option."""
        joined: list[str] = []
        for argument in arguments:
            action = self._option_string_actions.get(joined[-1]) if joined else None
            if action and action.choices and argument.startswith("-") and argument in action.choices:
                joined[-1] += f"={argument}"
            else:
                joined.append(argument)
        return joined


def refuse_given(options: argparse.Namespace, names: Sequence[str], reason: str) -> None:
    """Raise `UserError` for the first of some options on the command line, since it would have no effect.

    Args:
        names: attributes of the options.
        reason: end of the sentence that begins with the option, such as "is for raw ScanNet".
    """
    for name in names:
        if name in options.given:
            raise UserError(f"--{name.replace('_', '-')} {reason}; leave it out")
