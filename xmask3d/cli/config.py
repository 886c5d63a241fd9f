"""Show configuration keys: purpose, default, and possible values of each."""

import difflib
import json
import re
import textwrap
from argparse import ArgumentParser, Namespace
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any, Literal, get_args, get_origin

from xmask3d.errors import UserError

if TYPE_CHECKING:
    from pydantic import BaseModel
    from pydantic.fields import FieldInfo

    from xmask3d.config import Config

WIDTH, INDENT = 110, 6 * " "
SIGNS = {"gt": "above {}", "ge": "at least {}", "lt": "below {}", "le": "at most {}", "multiple_of": "a multiple of {}"}


def add_arguments(parser: ArgumentParser) -> None:
    """Declare the arguments of `xmask3d config`."""
    parser.epilog = """examples:
  xmask3d config                                            every key
  xmask3d config train.epochs evaluate                      a key, and a section
  xmask3d config config/rooms/B15N4.yaml train.epochs=3     the values of a configuration"""
    parser.add_argument(
        "asked", nargs="*", metavar="KEY|CONFIG|key=value", help="keys and sections; a configuration and its changes"
    )


def run(options: Namespace) -> int:
    """Print the requested keys, with the values of a configuration if one is given."""
    overrides = [word for word in options.asked if "=" in word]
    files = [word for word in options.asked if "=" not in word and ("/" in word or word.endswith((".yaml", ".yml")))]
    keys = [word for word in options.asked if word not in overrides and word not in files]
    if len(files) > 1 or (overrides and not files):
        raise UserError("name one configuration, such as config/rooms/B15N4.yaml, before its changes")

    from xmask3d.cli.arguments import read_config
    from xmask3d.config import Config

    config = read_config(Namespace(config=files[0], overrides=overrides)) if files else Config()
    print("\n".join(describe(keys, config)))
    return 0


def describe(asked: list[str], config: "Config") -> list[str]:
    """Describe keys in lines.

    Args:
        asked: keys and sections; empty for all.
        config: configuration whose values are shown, together with differing defaults.

    Raises:
        UserError: a key is unknown; the message names the nearest one.
    """
    defaults, values = type(config)(), {key: value for key, _, value in walk(config, ())}
    check_keys(asked, list(values))
    lines: list[str] = []
    section = None
    for key, field, default in walk(defaults, ()):
        if asked and not any(is_below(key, name) for name in asked):
            continue
        if key.rpartition(".")[0] != section:
            section = key.rpartition(".")[0]
            lines += ["", f"{section or 'top level'}: {sentence_of(defaults, section)}"]
        also = "" if values[key] == default else f"  (default: {shown(default)})"
        limits = limits_of(field)
        lines.append(f"  {key} = {shown(values[key])}{also}" + (f"  [{limits}]" if limits else ""))
        lines += textwrap.wrap(field.description or "", WIDTH, initial_indent=INDENT, subsequent_indent=INDENT)
    return lines[1:]


def check_keys(asked: list[str], known: list[str]) -> None:
    """Raise `UserError` for the first name that is neither a key nor a section, with the nearest that is."""
    sections = {key.rpartition(".")[0] for key in known if "." in key}
    for name in asked:
        if not any(is_below(key, name) for key in known):
            last = [key for key in known if key.rpartition(".")[2] == name.rpartition(".")[2]]
            near = last or difflib.get_close_matches(name, [*known, *sections], 1)
            hint = f"did you mean '{near[0]}'?" if near else "xmask3d config prints all"
            raise UserError(f"unknown key '{name}'; {hint}")


def is_below(key: str, name: str) -> bool:
    """Return True if a key is the named one, or in the named section."""
    return f"{key}.".startswith(f"{name}.")


def walk(section: "BaseModel", above: tuple[str, ...]) -> "Iterator[tuple[str, FieldInfo, Any]]":
    """Yield every key below a section, dotted, with its field and value; the section's own keys come first."""
    from pydantic import BaseModel

    fields = {name: (field, getattr(section, name)) for name, field in type(section).model_fields.items()}
    for name, (field, value) in fields.items():
        if not isinstance(value, BaseModel):
            yield ".".join((*above, name)), field, value
    for name, (_, value) in fields.items():
        if isinstance(value, BaseModel):
            yield from walk(value, (*above, name))


def sentence_of(config: "BaseModel", section: str) -> str:
    """Return the sentence of a section, which is its docstring."""
    for name in filter(None, section.split(".")):
        config = getattr(config, name)
    return " ".join((type(config).__doc__ or "").split())


def shown(value: Any) -> str:
    """Format a value for a command line."""
    if value is None or isinstance(value, bool | list | tuple):
        return json.dumps(value)
    return str(value)


def limits_of(field: "FieldInfo") -> str:
    """Describe the valid values of a field: its choices, or its type and range."""
    choices = [value for part in flat(field.annotation) if get_origin(part) is Literal for value in get_args(part)]
    if choices:
        return " | ".join(map(str, choices))
    kinds = {getattr(part, "__name__", "") for part in flat(field.annotation)}
    words = [name for kind, name in (("bool", "true | false"), ("Path", "path")) if kind in kinds]
    for limit in field.metadata:
        for name, sign in SIGNS.items():
            if getattr(limit, name, None) is not None:
                words.append(sign.format(getattr(limit, name)))
    if type(None) in flat(field.annotation):
        words.append("or null")
    return re.sub(r", or null$", " or null", ", ".join(words))


def flat(annotation: Any) -> list[Any]:
    """Split a union into its types; any other annotation is returned alone."""
    return list(get_args(annotation)) if get_origin(annotation) not in (None, Literal, list, tuple) else [annotation]
