"""Files that come with the program: shipped configurations, class lists, and the checkout it may run from.

Configurations and class lists are at the top of the repository, where people expect them. A wheel has them inside the
package (see `setup.py`); both places work without an installation.
"""

import difflib
import os
import re
from importlib.resources import files
from pathlib import Path

from xmask3d.errors import UserError

REPOSITORY = Path(__file__).resolve().parents[1]
"""Folder of the package: the repository, or the folder of installed packages."""

IS_CHECKOUT = (REPOSITORY / "config" / "published.yaml").is_file() and (REPOSITORY / "pyproject.toml").is_file()
"""True if the package is imported from the repository, in which paths are then also searched."""

CACHE = Path(os.environ.get("XDG_CACHE_HOME") or os.path.expanduser("~/.cache")) / "xmask3d"
"""User's folder for files that are downloaded or compiled once."""

EXAMPLE = "example"
"""Name that stands for the package's own recording where a scan is expected."""

DATA_SET_OF_LIST = {"scannet20": "scannet"}
"""Folders of configurations whose name, that of the data set, differs from the class list in the benchmark's name."""

_OF_HUB = re.compile(r"[\w-][\w.-]*/[\w-][\w.-]*")


def configurations() -> Path:
    """Return the folder of the shipped configurations, such as `rooms/B15N4.yaml`."""
    return REPOSITORY / "config" if IS_CHECKOUT else Path(str(files("xmask3d"))) / "config_files"


def class_lists() -> Path:
    """Return the folder of the shipped class lists, such as `scannet20.yaml`."""
    return REPOSITORY / "dataset" if IS_CHECKOUT else Path(str(files("xmask3d"))) / "class_lists"


def scan_path(path: Path | str) -> Path:
    """Return a path, or the package's recording for `example` if no file or folder here has that name."""
    path = Path(path)
    bundled = Path(str(files("xmask3d"))) / "scan" / EXAMPLE
    return bundled if path == Path(EXAMPLE) and not path.exists() else path


def find_file(path: Path | str) -> Path:
    """Find a path from any folder: as given if it exists, else relative to the repository if there is one."""
    path = Path(path)
    return path if path.is_absolute() or path.exists() or not IS_CHECKOUT else REPOSITORY / path


def is_of_hub(name: str) -> bool:
    """Return True for the form org/name, unless it begins with an existing folder, like a misspelt path."""
    return bool(_OF_HUB.fullmatch(name)) and not Path(name).parent.exists()


def find_configuration(name: Path | str) -> Path:
    """Find a configuration: a file, a file of the repository, or a shipped one by its name.

    Args:
        name: a path, or a name such as "rooms/B15N4" or "scannet20/B15N4", with or without `.yaml` and `config/`.

    Raises:
        UserError: it is neither a file nor a shipped configuration; the message names the nearest and all shipped ones.
    """
    path = find_file(name)
    if path.is_file():
        return path
    asked = Path(name).with_suffix("") if Path(name).suffix == ".yaml" else Path(name)
    words = asked.parts[1:] if asked.parts[:1] == ("config",) else asked.parts
    if words and not asked.is_absolute():
        shipped = configurations().joinpath(DATA_SET_OF_LIST.get(words[0], words[0]), *words[1:])
        shipped = shipped.with_name(shipped.name + ".yaml")
        if shipped.is_file():
            return shipped
    known = shipped_configurations()
    near = difflib.get_close_matches("/".join(words[-2:]), known, 1)
    hint = f"did you mean '{near[0]}'? " if near else ""
    raise UserError(f"configuration '{name}': no such file, and none is shipped under that name; {hint}"
                    f"shipped: {', '.join(known)}")  # fmt: skip


def shipped_configurations() -> list[str]:
    """Return the sorted names that `find_configuration` knows, such as "rooms/B15N4"."""
    folder = configurations()
    return sorted(path.relative_to(folder).with_suffix("").as_posix() for path in folder.glob("*/*.yaml"))
