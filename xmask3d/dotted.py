"""Import of parts named by dotted path in a configuration, such as `mypackage.MyLoss`."""

import os
import sys
from importlib import import_module
from typing import Any

from xmask3d.errors import UserError


def is_dotted(name: str) -> bool:
    """Return True if a name is a dotted path, such as `mypackage.MyLoss`, rather than a part of this program."""
    parts = name.split(".")
    return len(parts) > 1 and all(part.isidentifier() for part in parts)


def import_dotted(path: str, key: str) -> Any:
    """Import the part at a dotted path, which runs the module's code.

    Configurations that come with somebody else's weights are refused earlier, see `load_config`. The working folder is
    searched too, after all others, as users of `python -m` expect.

    Args:
        path: module and name in it, such as `mypackage.losses.MyLoss`.
        key: key of the configuration, for messages.

    Raises:
        UserError: there is no such module, or it has nothing of that name.
    """
    module, _, name = path.rpartition(".")
    if os.getcwd() not in sys.path:
        sys.path.append(os.getcwd())  # remains in the path, since loader processes import the part again
    try:
        return getattr(import_module(module), name)
    except (ImportError, AttributeError) as error:
        raise UserError(
            f"{key}: {path} cannot be imported ({error}); install its package, or put its folder on PYTHONPATH"
        ) from error
