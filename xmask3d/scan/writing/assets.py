"""Materials and textures that a mesh names, copied along with it."""

import re
from collections.abc import Iterable
from contextlib import suppress
from pathlib import Path

from xmask3d.files import atomic_write
from xmask3d.scan.mesh_files import Assets

TEXTURE = re.compile(r"^\s*(?:map_\w+|bump|disp|norm)\s+(?:-\S+\s+\S+\s+)*(.+?)\s*$", re.MULTILINE)
"""Line of a material that names a picture."""


def copy_assets(source: Path, folder: Path, names: Iterable[str]) -> None:
    """Copy files that a mesh names, and the textures of its materials, to where a copy of the mesh is written.

    Args:
        source: the mesh. What lies beside or below it is copied to the same place beside or below the copy.
        folder: folder of the copy.
        names: names in the mesh.
    """
    assets, inside = Assets(source.parent), source.parent.resolve()
    if folder.resolve() == inside:
        return
    waiting, found = list(names), dict[Path, bytes]()
    for name in waiting:
        with suppress(OSError):  # of a name that no system takes, or a file that may not be read
            path = assets.find(name)
            if path is not None and path not in found:
                found[path] = path.read_bytes()
                if path.suffix.lower() == ".mtl":
                    waiting += TEXTURE.findall(found[path].decode("utf-8", "replace"))
    for path, content in found.items():
        atomic_write(folder / path.relative_to(inside), content)
