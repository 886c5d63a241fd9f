"""Files that come with the program: shipped configurations, class lists, and the checkout it may run from.

Configurations and class lists lie at the top of the repository, where people look for them. A wheel carries them inside
the package (`setup.py` says where); both are found without an installation of any kind.
"""

import difflib
import os
from importlib.resources import files
from pathlib import Path

from xmask3d.errors import UserError

REPOSITORY = Path(__file__).resolve().parents[1]
"""Folder that the package lies in: the repository, or the folder of installed packages."""

IS_CHECKOUT = (REPOSITORY / "config" / "published.yaml").is_file() and (REPOSITORY / "pyproject.toml").is_file()
"""True where the package is imported from the repository; paths are then also looked up there."""

CACHE = Path(os.environ.get("XDG_CACHE_HOME") or os.path.expanduser("~/.cache")) / "xmask3d"
"""Folder of the user's for what is downloaded or compiled once."""

EXAMPLE = "example"
"""Name of the recording that comes with the package, where a scan is asked for."""

DATA_SET_OF_LIST = {"scannet20": "scannet"}
"""Benchmarks are named by their class list, configurations by their data set; the ones that differ."""


def configurations() -> Path:
    """Return the folder of the shipped configurations, such as `rooms/B15N4.yaml`."""
    return REPOSITORY / "config" if IS_CHECKOUT else Path(str(files("xmask3d"))) / "config_files"


def class_lists() -> Path:
    """Return the folder of the shipped class lists, such as `scannet20.yaml`."""
    return REPOSITORY / "dataset" if IS_CHECKOUT else Path(str(files("xmask3d"))) / "class_lists"


def scan_path(path: Path | str) -> Path:
    """Return a path, or the recording of the package where it is `example` and no file or folder here has that name."""
    path = Path(path)
    bundled = Path(str(files("xmask3d"))) / "scan" / EXAMPLE
    return bundled if path == Path(EXAMPLE) and not path.exists() else path


def find_file(path: Path | str) -> Path:
    """Find a path from any folder: as given if it exists, else relative to the repository where there is one."""
    path = Path(path)
    return path if path.is_absolute() or path.exists() or not IS_CHECKOUT else REPOSITORY / path


def find_configuration(name: Path | str) -> Path:
    """Find a configuration: a file, a file of the repository, or a shipped one by its name.

    Args:
        name: a path, or a name such as "rooms/B15N4" or "scannet20/B15N4", with or without `.yaml` and `config/`.

    Raises:
        UserError: neither a file nor a shipped configuration; names the nearest and all that are shipped.
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
