"""Copies of the materials and textures that a mesh names."""

import re
from collections.abc import Iterable
from contextlib import suppress
from pathlib import Path

from xmask3d.files import atomic_write
from xmask3d.scan.mesh_files import Assets

TEXTURE = re.compile(r"^\s*(?:map_\w+|bump|disp|norm)\s+(?:-\S+\s+\S+\s+)*(.+?)\s*$", re.MULTILINE)
"""Pattern of lines of a material that name a picture."""


def copy_assets(source: Path, folder: Path, names: Iterable[str]) -> None:
    """Copy the files that a mesh names, and the textures of its materials, beside a copy of the mesh.

    Args:
        source: the mesh; files in its folder and below are copied to the same relative paths.
        folder: folder of the copy.
        names: names in the mesh.
    """
    assets, inside = Assets(source.parent), source.parent.resolve()
    if folder.resolve() == inside:
        return
    waiting, found = list(names), dict[Path, bytes]()
    for name in waiting:
        with suppress(OSError):  # for a name that is not valid, or a file that may not be read
            path = assets.find(name)
            if path is not None and path not in found:
                found[path] = path.read_bytes()
                if path.suffix.lower() == ".mtl":
                    waiting += TEXTURE.findall(found[path].decode("utf-8", "replace"))
    for path, content in found.items():
        atomic_write(folder / path.relative_to(inside), content)
