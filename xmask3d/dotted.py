"""Import of parts that a configuration names by dotted path, such as `mypackage.MyLoss`."""

import os
import sys
from importlib import import_module
from typing import Any

from xmask3d.errors import UserError


def is_dotted(name: str) -> bool:
    """Return whether a name is a dotted path, such as `mypackage.MyLoss`, and not a part of this program."""
    parts = name.split(".")
    return len(parts) > 1 and all(part.isidentifier() for part in parts)


def import_dotted(path: str, key: str) -> Any:
    """Import the part that a dotted path names; this runs the module's code.

    Configurations that come with somebody else's weights are refused before, see `load_config`. The working folder is
    searched too, after all others, as whoever runs `python -m` expects.

    Args:
        path: module and name in it, such as `mypackage.losses.MyLoss`.
        key: key of the configuration, for messages.

    Raises:
        UserError: no such module, or nothing of that name in it.
    """
    module, _, name = path.rpartition(".")
    if os.getcwd() not in sys.path:
        sys.path.append(os.getcwd())  # stays, since processes that load data import the part again
    try:
        return getattr(import_module(module), name)
    except (ImportError, AttributeError) as error:
        raise UserError(
            f"{key}: {path} cannot be imported ({error}); install its package, or put its folder on PYTHONPATH"
        ) from error
