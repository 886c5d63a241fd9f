"""Check of glTF files, made before a mesh library relies on their content."""

import base64
import math
import struct
from pathlib import Path
from typing import Any
from urllib.parse import unquote

from xmask3d.errors import UserError
from xmask3d.guarded import check_picture, parse_json, read_object, reading

UPRIGHT = "xmask3d: upright"
"""Name of the node that makes a scan from another format upright in viewers; it is no part of the scan's own frame."""
MAX_VERTICES = 50_000_000
"""Largest number of vertices of all meshes, counted as often as nodes place them."""

TRIANGLE_FAN, UNSIGNED_INT = 6, 5125
KNOWN = (
    "KHR_materials_",
    "KHR_lights_",
    "KHR_mesh_quantization",
    "KHR_draco",
    "KHR_meshopt",
    "EXT_meshopt",
    "EXT_texture_webp",
)
"""Beginnings of extensions that are read, do not matter for points, or are refused with the way out."""


def check_gltf(path: Path) -> dict[str, Any]:
    """Return the description in a .glb or .gltf file; refuse a scene that is no tree, or is endless in few bytes.

    Raises:
        UserError: the file is damaged, a node has two parents, or there are more numbers than bytes.
    """
    with reading(path, f"a {path.suffix[1:].upper()} file"):
        content = _description(path)
        size = path.stat().st_size + sum(_length(path, buffer.get("uri", "")) for buffer in content.get("buffers", []))
        nodes = content.get("nodes", [])
        children = [child for node in nodes for child in node.get("children", [])]
        roots = [root for scene in content.get("scenes", []) for root in scene.get("nodes", [])]
        if len({*children, *roots}) != len(children) + len(roots):
            raise ValueError("nodes with several parents")
        if unknown := [name for name in content.get("extensionsRequired", []) if not name.startswith(KNOWN)]:
            raise UserError(f"{path}: needs the glTF extension {unknown[0]}, which is not read here; export without it")
        counts = [accessor["count"] for accessor in content.get("accessors", [])]
        for part in (part for mesh in content.get("meshes", []) for part in mesh["primitives"]):
            _check_readable(path, part, content["accessors"][part["attributes"]["POSITION"]])
        if wrong := [count for count in counts if type(count) is not int or not 0 <= count <= size]:
            raise ValueError(f"{wrong[0]} numbers in {size} bytes")
        if not all(0.9 < math.hypot(*node["rotation"]) < 1.1 for node in nodes if "rotation" in node):
            raise ValueError("a rotation that is none")
        meshes = [_vertices(mesh, counts) for mesh in content.get("meshes", [])]
        if sum(meshes[node["mesh"]] for node in nodes if "mesh" in node) > MAX_VERTICES:
            raise ValueError(f"more than {MAX_VERTICES} vertices")
        for number, image in enumerate(content.get("images", [])):
            if picture := _picture(path, image, content):
                check_picture(picture, f"{path}: texture {number}")
    return content


def _check_readable(path: Path, part: dict[str, Any], position: dict[str, Any]) -> None:
    """Refuse what the mesh library would pass over, or read as another shape."""
    if position.get("normalized") or position["componentType"] == UNSIGNED_INT:
        raise UserError(f"{path}: its positions are normalised or large whole numbers, not read here; export floats")
    if "sparse" in position:
        raise UserError(f"{path}: some of its positions replace others (sparse), which is not read here; export all")
    if part.get("mode") == TRIANGLE_FAN:
        raise UserError(f"{path}: has triangle fans, which are not read here; export triangles")


def _description(path: Path) -> dict[str, Any]:
    if path.suffix.lower() == ".gltf":
        return read_object(path, "a glTF file")
    with open(path, "rb") as stream:
        magic, _, _, length, kind = struct.unpack("<4sIII4s", stream.read(20))
        if magic != b"glTF" or kind != b"JSON" or length > path.stat().st_size:
            raise ValueError("no description in it")
        return parse_json(stream.read(length), path, "a glTF file")


def _length(path: Path, uri: str) -> int:
    """Return the length of a buffer in a separate file; 0 for a buffer inside the file itself."""
    if not uri or uri.startswith("data:"):
        return 0
    buffer = path.parent / unquote(uri).replace("\\", "/")
    if not (buffer.resolve().is_relative_to(path.parent.resolve()) and buffer.is_file()):
        raise UserError(f"{path}: its points are in {uri}, which is missing; put it beside the file, or export GLB")
    return buffer.stat().st_size


def _picture(path: Path, image: dict[str, Any], content: dict[str, Any]) -> bytes:
    """Return the bytes of a texture inside the file or its buffers, none if it is a file of its own."""
    if "bufferView" not in image:
        uri = str(image.get("uri", ""))
        return _inside(uri) if uri.startswith("data:") else b""
    view = content["bufferViews"][image["bufferView"]]
    uri, start = content["buffers"][view.get("buffer", 0)].get("uri"), view.get("byteOffset", 0)
    if uri and uri.startswith("data:"):
        return _inside(uri)[start : start + view["byteLength"]]
    with open(path.parent / unquote(uri).replace("\\", "/") if uri else path, "rb") as stream:
        if not uri:  # content of the second chunk
            start += 28 + struct.unpack("<12xI", stream.read(16))[0]
        stream.seek(start)
        return stream.read(view["byteLength"])


def _inside(uri: str) -> bytes:
    return base64.b64decode(uri.partition(",")[2])


def _vertices(mesh: dict[str, Any], counts: list[int]) -> int:
    return sum(counts[part["attributes"]["POSITION"]] for part in mesh["primitives"])
