"""Loading of meshes by trimesh, in a form that it reads correctly and only with checked files beside them."""

import io
import os
import re
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, cast
from urllib.parse import unquote

import numpy as np

from xmask3d.errors import UserError
from xmask3d.guarded import check_picture
from xmask3d.scan.glb import UPRIGHT, check_gltf

PROGRAMS = (b"%!", b"\xc5\xd0\xd3\xc6")
"""First bytes of PostScript files, for which Pillow would start an interpreter."""

COMPRESSION = {
    "KHR_draco_mesh_compression": "DracoPy",
    "EXT_meshopt_compression": None,
    "KHR_meshopt_compression": None,
}
"""Extensions of glTF that compress geometry, with the package that reads them, if any."""


@dataclass
class Assets:
    """Resolver that finds, for trimesh, the files named by a mesh, in its folder and below.

    Attributes:
        folder: folder of the mesh.
        missing: names of missing files.
        refused: reasons for refusing existing files, which trimesh would otherwise silently skip.
    """

    folder: Path
    missing: list[str] = field(default_factory=list)
    refused: list[UserError] = field(default_factory=list)

    def find(self, name: str) -> Path | None:
        """Find a file by its name in the mesh, inside the folder, or return None.

        A backslash separates folders too, and of a path from another machine only the last part is used.
        """
        inside = self.folder.resolve()
        parts = name.strip().strip('"').replace("\\", "/")
        for part in (parts, unquote(parts), parts.rsplit("/", 1)[-1]):
            path = Path(os.path.normpath(inside / part))
            if path.is_relative_to(inside) and path.is_file() and path.resolve().is_relative_to(inside):
                return path
        return None

    def get(self, name: str) -> bytes:
        """Read a file and check pictures, since trimesh decodes any format, even those that start other programs."""
        path = self.find(name)
        if path is not None:
            try:
                return _checked(path)
            except UserError as error:
                self.refused.append(error)
                raise
        if name not in self.missing:
            self.missing.append(name)
        raise FileNotFoundError(name)

    __getitem__ = get


def _checked(path: Path) -> bytes:
    """Read a file named by a mesh, which is a picture, materials or numbers."""
    content = path.read_bytes()
    if path.suffix.lower() not in (".mtl", ".bin"):
        check_picture(content, str(path))
    elif content.startswith(PROGRAMS):
        raise UserError(f"{path}: a program in PostScript, not {path.suffix}")
    return content


def load(path: Path) -> tuple[Any, Assets]:
    """Load a mesh, scene or cloud by trimesh, and return it with the files that it names.

    Raises:
        UserError: the geometry is compressed and the package for it is missing, or a file beside it must not be opened.
        Exception: trimesh's loaders raise all kinds of errors on damaged files.
    """
    import trimesh

    assets, suffix = Assets(path.parent), path.suffix.lower()
    if suffix in (".glb", ".gltf"):
        _refuse_compressed(path, check_gltf(path))
    data = path.read_bytes()
    if suffix == ".ply":
        data = _plain_header(data, assets)
    elif suffix == ".off":
        data = without_comments(data)
    elif suffix == ".obj":
        data = from_the_start(data.replace(b"\r\n", b"\n"))
    loaded = trimesh.load(io.BytesIO(data), file_type=suffix[1:], resolver=cast(Any, assets), process=False)
    if assets.refused:
        raise assets.refused[0]
    if isinstance(loaded, trimesh.Scene) and UPRIGHT in loaded.graph.nodes:
        loaded.graph.update(UPRIGHT, matrix=np.eye(4))
    return loaded, assets


def _refuse_compressed(path: Path, content: dict[str, Any]) -> None:
    """Refuse compressed geometry if the package for it is missing, since trimesh would continue with zeros."""
    for name in COMPRESSION.keys() & set(content.get("extensionsUsed", [])):
        package = COMPRESSION[name]
        try:
            __import__(package or "")
        except (ImportError, ValueError) as error:
            way = f"pip install {package}" if package else "export it without compression"
            raise UserError(f"{path}: its geometry is compressed ({name}), which is not read here: {way}") from error


def _plain_header(data: bytes, assets: Assets) -> bytes:
    """Convert the header of a PLY to ASCII, as which trimesh decodes it, and drop missing textures."""
    end = data.index(b"end_header")
    lines = data[:end].decode("latin-1").encode("ascii", "replace").splitlines(keepends=True)
    for line in list(lines):
        name = line.partition(b"TextureFile")[2].decode().strip()
        try:
            if name:
                assets.get(name)
        except FileNotFoundError:
            lines.remove(line)
    return b"".join(lines) + data[end:]


def without_comments(data: bytes) -> bytes:
    """Drop comments and empty lines of an OFF file, since trimesh may misread the line after a comment."""
    return b"\n".join(line for line in (line.split(b"#")[0].strip() for line in data.splitlines()) if line)


def from_the_start(data: bytes) -> bytes:
    """Replace indices relative to the latest vertex, texture coordinate or normal by absolute ones.

    trimesh counts relative indices from the end of the file, which changes the shape if vertices follow.
    """
    if not re.search(rb"^[ \t]*f[ \t].*-", data, re.MULTILINE):
        return data
    seen, lines = {b"v": 0, b"vt": 0, b"vn": 0}, data.split(b"\n")
    for number, line in enumerate(lines):
        words = line.split()
        if words and words[0] in seen:
            seen[words[0]] += 1
        elif words and words[0] == b"f":
            corners = [zip(word.split(b"/"), seen.values(), strict=False) for word in words[1:]]
            lines[number] = b"f " + b" ".join(b"/".join(_forward(i, count) for i, count in c) for c in corners)
    return b"\n".join(lines)


def _forward(index: bytes, count: int) -> bytes:
    if not index.startswith(b"-"):
        return index
    if count + int(index) < 0:
        raise ValueError(f"a face counts back {index[1:].decode()} of {count}")
    return str(count + int(index) + 1).encode()
